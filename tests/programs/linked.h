// What linked.cu takes from linked_b.cu by linking device code.
#ifndef POS_TESTS_PROGRAMS_LINKED_H_
#define POS_TESTS_PROGRAMS_LINKED_H_

struct Shape {
  __device__ virtual int Area(int scale) const = 0;
  __device__ virtual ~Shape() {}
};
extern __device__ int calls;
extern __constant__ int offsets[4];
__device__ int Twist(int x);
__device__ int Deep(int n);
__device__ const Shape* ShapeOf(int kind);
using Step = int (*)(int);
extern __device__ Step steps[2];

#endif  // POS_TESTS_PROGRAMS_LINKED_H_
