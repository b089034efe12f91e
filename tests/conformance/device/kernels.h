// Kernels of the conformance suite, as PTX text.
#ifndef POS_TESTS_CONFORMANCE_DEVICE_KERNELS_H_
#define POS_TESTS_CONFORMANCE_DEVICE_KERNELS_H_

namespace pos::conformance {

// empty(); affine(u32* data, u32 n, u32 factor, u32 term);
// wait(u32* flag, u32 value, u32* out): spins until *flag == value, then
// *out = value; endless(); poke(u32* p, u32 value); trapped();
// bounded(): 64 threads at most.
inline constexpr char kBasic[] = R"(
.version 8.0
.target sm_75
.address_size 64

.visible .entry empty() { ret; }

.visible .entry affine(.param .u64 data, .param .u32 n, .param .u32 factor,
                       .param .u32 term)
{
  .reg .pred %p<2>;
  .reg .b32 %r<10>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [data];
  ld.param.u32 %r1, [n];
  ld.param.u32 %r2, [factor];
  ld.param.u32 %r3, [term];
  mov.u32 %r4, %ctaid.x;
  mov.u32 %r5, %ntid.x;
  mov.u32 %r6, %tid.x;
  mad.lo.u32 %r7, %r4, %r5, %r6;
  setp.ge.u32 %p1, %r7, %r1;
  @%p1 bra $done;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r7, 4;
  add.u64 %rd2, %rd2, %rd3;
  ld.global.u32 %r8, [%rd2];
  mad.lo.u32 %r8, %r8, %r2, %r3;
  st.global.u32 [%rd2], %r8;
$done:
  ret;
}

.visible .entry wait(.param .u64 flag, .param .u32 value, .param .u64 out)
{
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [flag];
  ld.param.u32 %r1, [value];
  ld.param.u64 %rd2, [out];
$again:
  ld.volatile.global.u32 %r2, [%rd1];
  setp.ne.u32 %p1, %r2, %r1;
  @%p1 bra $again;
  membar.sys;
  st.volatile.global.u32 [%rd2], %r1;
  ret;
}

.visible .entry endless()
{
$again:
  bra $again;
}

.visible .entry poke(.param .u64 p, .param .u32 value)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [p];
  ld.param.u32 %r1, [value];
  st.global.u32 [%rd1], %r1;
  ret;
}

.visible .entry trapped() { trap; ret; }

.visible .entry bounded()
.maxntid 64, 1, 1
{ ret; }
)";

// Variables: counter = 7, zeros[32], values = {1, 2, 3}, link = &values[1],
// constant factor = 5. step(u32* out): out[0] = ++counter * factor,
// out[1] = *link, ++zeros[3], out[2] = zeros[3].
inline constexpr char kVariables[] = R"(
.version 8.0
.target sm_75
.address_size 64

.visible .global .align 4 .u32 counter = 7;
.visible .global .align 16 .b8 zeros[128];
.visible .global .align 4 .u32 values[3] = {1, 2, 3};
.visible .global .align 8 .u64 link = generic(values)+4;
.visible .const .align 4 .u32 factor = 5;

.visible .entry step(.param .u64 out)
{
  .reg .b32 %r<10>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [out];
  ld.global.u32 %r1, [counter];
  add.u32 %r1, %r1, 1;
  st.global.u32 [counter], %r1;
  ld.const.u32 %r2, [factor];
  mul.lo.u32 %r3, %r1, %r2;
  st.global.u32 [%rd1], %r3;
  ld.global.u64 %rd2, [link];
  ld.u32 %r4, [%rd2];
  st.global.u32 [%rd1+4], %r4;
  ld.global.u32 %r5, [zeros+12];
  add.u32 %r5, %r5, 1;
  st.global.u32 [zeros+12], %r5;
  st.global.u32 [%rd1+8], %r5;
  ret;
}
)";

// reverse(u32* data): a block reverses its blockDim.x words through dynamic
// shared memory. pack(struct {char tag; u32* p; short s}, char c, u64 last):
// *p = tag + s + c + last.
inline constexpr char kArguments[] = R"(
.version 8.0
.target sm_75
.address_size 64

.extern .shared .align 16 .b8 buffer[];

.visible .entry reverse(.param .u64 data)
{
  .reg .b32 %r<10>;
  .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [data];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r9, %ctaid.x;
  mul.lo.u32 %r9, %r9, %r2;
  mul.wide.u32 %rd2, %r9, 4;
  add.u64 %rd1, %rd1, %rd2;
  mul.wide.u32 %rd3, %r1, 4;
  add.u64 %rd3, %rd1, %rd3;
  ld.global.u32 %r3, [%rd3];
  mov.u32 %r4, buffer;
  shl.b32 %r5, %r1, 2;
  add.u32 %r5, %r4, %r5;
  st.shared.u32 [%r5], %r3;
  bar.sync 0;
  sub.u32 %r6, %r2, %r1;
  sub.u32 %r6, %r6, 1;
  shl.b32 %r6, %r6, 2;
  add.u32 %r6, %r4, %r6;
  ld.shared.u32 %r7, [%r6];
  st.global.u32 [%rd3], %r7;
  ret;
}

.visible .entry pack(.param .align 8 .b8 view[24], .param .u8 c,
                     .param .u64 last)
{
  .reg .b16 %h<4>;
  .reg .b32 %r<10>;
  .reg .b64 %rd<4>;
  ld.param.s8 %h1, [view];
  ld.param.u64 %rd1, [view+8];
  ld.param.s16 %h2, [view+16];
  ld.param.s8 %h3, [c];
  ld.param.u64 %rd2, [last];
  cvt.s32.s16 %r1, %h1;
  cvt.s32.s16 %r2, %h2;
  cvt.s32.s16 %r3, %h3;
  cvt.u32.u64 %r4, %rd2;
  add.s32 %r5, %r1, %r2;
  add.s32 %r5, %r5, %r3;
  add.s32 %r5, %r5, %r4;
  st.global.u32 [%rd1], %r5;
  ret;
}
)";

// say(): prints "hello from the device\n".
inline constexpr char kPrinting[] = R"(
.version 8.0
.target sm_75
.address_size 64

.extern .func (.param .b32 result) vprintf(.param .b64 format,
                                           .param .b64 arguments);
.global .align 1 .b8 text[23] = {104, 101, 108, 108, 111, 32, 102, 114, 111,
  109, 32, 116, 104, 101, 32, 100, 101, 118, 105, 99, 101, 10, 0};

.visible .entry say()
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<4>;
  mov.u64 %rd1, text;
  cvta.global.u64 %rd2, %rd1;
  mov.u64 %rd3, 0;
  {
    .param .b64 param0;
    st.param.b64 [param0], %rd2;
    .param .b64 param1;
    st.param.b64 [param1], %rd3;
    .param .b32 retval0;
    call.uni (retval0), vprintf, (param0, param1);
    ld.param.b32 %r1, [retval0];
  }
  ret;
}
)";

}  // namespace pos::conformance

#endif  // POS_TESTS_CONFORMANCE_DEVICE_KERNELS_H_
