// Gravity among all pairs of bodies, in tiles of shared memory; float, or double
// with -DREAL=double. The device computes with the same operations in the same
// order as the processor, so both agree to the bit.
#include "arrays.h"

#ifndef REAL
#define REAL float
#endif
using Real = REAL;

struct Body {
  Real x, y, z, mass;
};

constexpr int kBlock = 64;

__host__ __device__ void Pull(const Body& a, const Body& b, Real force[3]) {
  const Real dx = b.x - a.x, dy = b.y - a.y, dz = b.z - a.z;
  const Real squared =
      fma(dx, dx, fma(dy, dy, fma(dz, dz, static_cast<Real>(0.01))));
  const Real distance = sqrt(squared);
  const Real scale = b.mass / (squared * distance);
  force[0] = fma(dx, scale, force[0]);
  force[1] = fma(dy, scale, force[1]);
  force[2] = fma(dz, scale, force[2]);
}

__host__ __device__ void Advance(Body& body, Real* velocity,
                                 const Real force[3]) {
  const Real step = static_cast<Real>(0.01);
  Real* const at[3] = {&body.x, &body.y, &body.z};
  for (int k = 0; k < 3; ++k) {
    velocity[k] = fma(step, force[k], velocity[k]);
    *at[k] = fma(step, velocity[k], *at[k]);
  }
}

__global__ void Step(const Body* from, Body* to, Real* velocity, int n) {
  __shared__ Body tile[kBlock];
  const int i = blockIdx.x * kBlock + threadIdx.x;
  Body mine = from[i];
  Real force[3] = {0, 0, 0};
  for (int base = 0; base < n; base += kBlock) {
    tile[threadIdx.x] = from[base + threadIdx.x];
    __syncthreads();
    for (int k = 0; k < kBlock; ++k) Pull(mine, tile[k], force);
    __syncthreads();
  }
  Advance(mine, velocity + 3 * i, force);
  to[i] = mine;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 128;
  Random random(31);
  std::vector<Body> bodies(n), next(n);
  std::vector<Real> velocity(3 * n);
  for (Body& b : bodies) {
    b = {Uniform(random), Uniform(random), Uniform(random),
         Uniform(random) / n};
  }
  Body* from = Upload(bodies);
  Body* to = Allocate<Body>(n);
  Real* speed = Upload(velocity);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Step<<<n / kBlock, kBlock>>>(from, to, speed, n);
    std::swap(from, to);
    for (int i = 0; i < n; ++i) {
      Real force[3] = {0, 0, 0};
      for (int k = 0; k < n; ++k) Pull(bodies[i], bodies[k], force);
      next[i] = bodies[i];
      Advance(next[i], &velocity[3 * i], force);
    }
    bodies.swap(next);
    const auto got = Download(from, n);
    ExpectSame(got, bodies, "bodies");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
