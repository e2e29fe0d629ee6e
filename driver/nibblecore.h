/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver of the nibblecore machines without an operating system: freestanding C99, no allocation, no floating point.
 *
 * It includes nibblecore_config.h, which is yours and includes the headers that `make verilog` wrote of your machines:
 *
 *     #include "ltoaq_fpga.h"
 *     #include "cambriconq_fpga_bus.h"
 *
 * Functions of a machine whose header is not there are left out. docs/c-driver.md has examples.
 *
 * One device is used by one thread at a time; only nb_ltoaq_interrupt and nb_cambriconq_interrupt may interrupt the others.
 */

#ifndef NIBBLECORE_H
#define NIBBLECORE_H

#include <stdbool.h>
#include <stdint.h>

#include "nibblecore_config.h"

/* Between what is written to memory and the register that makes the machine read it, and before results are read. A processor that
 * reorders such accesses wants its own here, say `#define NB_BARRIER() __asm__ volatile("dmb sy" ::: "memory")`. */
#ifndef NB_BARRIER
#define NB_BARRIER() ((void)0)
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum nb_status {
    NB_OK = 0,
    NB_WRONG_MACHINE,  /* ID is another machine's, or nothing answers there */
    NB_WRONG_CONFIG,   /* CONFIG0 or CONFIG1 are not those expected: another header's machine */
    NB_BAD_ARGUMENT,   /* a size or address that the driver can see is wrong; nothing was started */
    NB_BUSY,           /* a program is running, or the queue is full; nothing was started */
    NB_TIMEOUT,        /* the machine did not end; it may be at work still */
    NB_MACHINE_ERROR,  /* the machine gave up: nb_device.code and .place say why and where */
    NB_WRONG_RESULT    /* of a self test; nb_device.place is the index of the wrong number */
};

/* How a machine is reached. Registers by byte offset; memory by the addresses that the machine uses, a multiple of 4 each. */
struct nb_bus {
    uint32_t (*read_register)(void *context, uint32_t offset);
    void (*write_register)(void *context, uint32_t offset, uint32_t value);
    uint32_t (*read_memory)(void *context, uint32_t address);
    void (*write_memory)(void *context, uint32_t address, uint32_t value);
    void (*pause)(void *context); /* between two looks at a register, say to sleep until an interrupt; may be 0 */
    void *context;
    uint32_t looks; /* after so many in vain a machine counts as stuck */
};

/* A bus whose registers and memory the processor sees: context of nb_mapped. Memory must not be cached. */
struct nb_mapping {
    volatile uint32_t *registers;
    volatile uint32_t *memory; /* what the machine has at memory_address */
    uint32_t memory_address;
};

struct nb_device {
    struct nb_bus bus;
    uint32_t config[2]; /* registers CONFIG0 and CONFIG1 */
    uint32_t code;      /* of the last NB_MACHINE_ERROR: LTOAQ_ERROR_… or CAMBRICONQ_ERROR_… */
    uint32_t place;     /* and its command or instruction: ERROR.sequence or INDEX */
};

/* The bus of a mapping, which must stay where it is. */
struct nb_bus nb_mapped(struct nb_mapping *mapping, uint32_t looks);

/* Words to and from memory, at addresses that are multiples of 4. */
void nb_write_words(const struct nb_device *device, uint32_t address, const uint32_t *words, uint32_t count);
void nb_read_words(const struct nb_device *device, uint32_t address, uint32_t *words, uint32_t count);

#ifdef LTOAQ_ID_VALUE

struct nb_ltoaq_tensor {
    uint32_t header, codes, runs; /* addresses */
    uint32_t run_stride;          /* beats for the run lengths of a tile */
    uint8_t bits;                 /* 4 or 8 */
    bool is_signed;
    uint8_t k;         /* residual shift */
    uint8_t threshold; /* T */
};

/* result[m][n] = a[m][k] · w[n][k]; a transposed operand is stored the other way round. */
struct nb_ltoaq_gemm {
    uint32_t m, n, k;
    bool a_transposed, w_transposed;
    struct nb_ltoaq_tensor a, w;
    bool quantized; /* the result is the tensor `out`, else 32-bit integers */
    /* 32-bit integers: address, and bytes from one row to the next */
    uint32_t raw_address, raw_pitch;
    /* quantized */
    struct nb_ltoaq_tensor out;
    uint32_t alpha;
    uint8_t multiplier, shift;
    bool relu;
};

struct nb_ltoaq_counters {
    uint32_t done, abandoned;
    uint32_t cycles, array_cycles, load_stalls, output_stalls;
};

/* Identifies the machine: config0 and config1 are <FILE>_CONFIG0 and _CONFIG1 of its header. Commands may touch memory from
 * window_base to window_last, both included. Abandons what was at work, clears errors and counters, and enables no interrupt. */
enum nb_status nb_ltoaq_open(struct nb_device *device, const struct nb_bus *bus, uint32_t config0, uint32_t config1,
                             uint32_t window_base, uint32_t window_last);

/* The descriptor of a product, with a tiling that fits the machine's buffers. With `interrupt` its end raises the interrupt. */
enum nb_status nb_ltoaq_describe(const struct nb_device *device, const struct nb_ltoaq_gemm *gemm, bool interrupt,
                                 uint32_t words[LTOAQ_DESCRIPTOR_WORDS]);

/* Queues the descriptor at an address, a multiple of LTOAQ_HEADER_BYTES. NB_BUSY: the queue is full. */
enum nb_status nb_ltoaq_push(const struct nb_device *device, uint32_t descriptor);

/* Waits until the queue is empty and nothing is at work. Of several failed commands the first is told, once. */
enum nb_status nb_ltoaq_wait(struct nb_device *device);

/* Writes the product's descriptor to an address, pushes it and waits. `overflow`, which may be 0: whether an accumulator wrapped. */
enum nb_status nb_ltoaq_multiply(struct nb_device *device, const struct nb_ltoaq_gemm *gemm, uint32_t descriptor, bool *overflow);

/* Abandons what is at work and in the queue; NB_TIMEOUT if the machine does not let go of the bus: then only a reset helps. */
enum nb_status nb_ltoaq_abandon(struct nb_device *device);

void nb_ltoaq_enable_interrupts(const struct nb_device *device, uint32_t mask); /* LTOAQ_IRQ_ENABLE_…_MASK */
uint32_t nb_ltoaq_interrupt(const struct nb_device *device); /* for the handler: the pending ones, LTOAQ_IRQ_STATUS_…_MASK, cleared */
void nb_ltoaq_counters(const struct nb_device *device, struct nb_ltoaq_counters *counters);

/* Multiplies two small matrices in the memory from `address` on, a multiple of 64, inside the window: nb_ltoaq_self_test_bytes of it. */
uint32_t nb_ltoaq_self_test_bytes(const struct nb_device *device);
enum nb_status nb_ltoaq_self_test(struct nb_device *device, uint32_t address);

const char *nb_ltoaq_cause(uint32_t code); /* an error code in words */

#endif

#ifdef CAMBRICONQ_ID_VALUE

struct nb_cambriconq_counters {
    uint32_t cycles, array_cycles;
    uint32_t phase[8];
};

/* Identifies the machine: config0 and config1 are <FILE>_CONFIG0 and _CONFIG1 of its header. Programs may touch memory from 0 to
 * memory_last. Stops a program that is running, clears flags and counters, and enables no interrupt. */
enum nb_status nb_cambriconq_open(struct nb_device *device, const struct nb_bus *bus, uint32_t config0, uint32_t config1,
                                  uint32_t memory_last);

/* Starts the program at an address, a multiple of CAMBRICONQ_INSTRUCTION_BYTES. NB_BUSY: another is running. */
enum nb_status nb_cambriconq_start(struct nb_device *device, uint32_t program);

/* Waits for its end. */
enum nb_status nb_cambriconq_wait(struct nb_device *device);

/* Both. */
enum nb_status nb_cambriconq_run(struct nb_device *device, uint32_t program);

/* Ends a program: no more instructions start. NB_TIMEOUT if those at work do not end: then only a reset helps. */
enum nb_status nb_cambriconq_stop(struct nb_device *device);

void nb_cambriconq_enable_interrupts(const struct nb_device *device, bool enable);
bool nb_cambriconq_interrupt(const struct nb_device *device); /* for the handler: a program has ended; nb_cambriconq_wait tells how */
uint32_t nb_cambriconq_flags(const struct nb_device *device); /* STATUS: CAMBRICONQ_STATUS_NAN_MASK, … */
void nb_cambriconq_counters(const struct nb_device *device, struct nb_cambriconq_counters *counters);

/* Quantizes and multiplies two small matrices in the memory from `address` on, a multiple of 64: nb_cambriconq_self_test_bytes of it.
 * Leaves both SQUs with one candidate of 8 bits. */
uint32_t nb_cambriconq_self_test_bytes(const struct nb_device *device);
enum nb_status nb_cambriconq_self_test(struct nb_device *device, uint32_t address);

const char *nb_cambriconq_cause(uint32_t code); /* an error code in words */

#endif

#ifdef __cplusplus
}
#endif

#endif
