// A plugin for qemu-user 7 and 8 (9 has another interface) that counts what an emulated program executes. Whenever the
// program asks for its parent (the system call getppid, which nothing else needs), it prints the numbers until then:
//   bssl-count <all instructions> <vector instructions> <CNT instructions>
// No package ships qemu-plugin.h, so what is needed of it is declared here (plugin interface, version 1).
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* block, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* instruction);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block, enum qemu_plugin_op op, void* counter,
                                              uint64_t add);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                          void (*call)(qemu_plugin_id_t, unsigned int, int64_t, uint64_t, uint64_t,
                                                       uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_outs(const char* text);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { kGetParent = 173 };  // aarch64's number of getppid

static uint64_t all, vector, bit_counts;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  uint64_t vectors = 0, counts = 0;
  const size_t length = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < length; ++i) {
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), 4);
    // Groups of the A64 encoding: data processing of SIMD and FP is x111, loads and stores are x1x0 with V for SIMD.
    const uint32_t group = code >> 25 & 0xf;
    vectors += (group & 7) == 7 || ((group & 5) == 4 && (code >> 26 & 1));
    counts += (code & 0xbffffc00) == 0x0e205800;
  }
  qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &all, length);
  if (vectors > 0) qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &vector, vectors);
  if (counts > 0) qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &bit_counts, counts);
}

static void called(qemu_plugin_id_t id, unsigned int processor, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)processor, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != kGetParent) return;
  char line[128];
  snprintf(line, sizeof(line), "bssl-count %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", all, vector, bit_counts);
  qemu_plugin_outs(line);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int count,
                                                               char** arguments) {
  (void)info;
  (void)count;
  (void)arguments;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
