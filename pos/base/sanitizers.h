// Whether this code is instrumented, under g++ and clang alike.
//
// A sanitizer keeps freed memory and shadows what is used, so that bounds on
// memory and time do not hold; nothing else may depend on it.
#ifndef POS_BASE_SANITIZERS_H_
#define POS_BASE_SANITIZERS_H_

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POS_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define POS_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define POS_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__)
#define POS_THREAD_SANITIZER 1
#endif

namespace pos {

#if defined(POS_ADDRESS_SANITIZER) || defined(POS_THREAD_SANITIZER)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace pos

#endif  // POS_BASE_SANITIZERS_H_
