// Where a program for Android begins. The NDK's crtbegin_dynamic.o does this; without an NDK it is done here: hand what
// the kernel left on the stack to Android's libc, which calls us and then `exit`.
#ifdef __ANDROID__

namespace bssl {
int run_program(int argc, char** argv);

namespace {

int enter(int argc, char** argv, char**) { return run_program(argc, argv); }

// Lists of constructors and destructors, of which this program has none; longer than any version of libc reads.
const void* const kNoStructors[16] = {};

}  // namespace
}  // namespace bssl

extern "C" {
[[noreturn]] void __libc_init(void* stack, void (*at_exit)(), int (*main)(int, char**, char**), const void* structors);

__attribute__((used)) void bssl_start(void* stack) { __libc_init(stack, nullptr, bssl::enter, bssl::kNoStructors); }
}

// No frame above this one; the stack pointer is the argument.
__asm__(
    ".globl _start\n"
    ".type _start, %function\n"
    "_start:\n"
    "  mov x29, #0\n"
    "  mov x30, #0\n"
    "  mov x0, sp\n"
    "  b bssl_start\n");

#endif
