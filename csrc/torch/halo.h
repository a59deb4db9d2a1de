/* Message passing over several processes: how a host keeps the features of its ghost atoms right.
 *
 * Between two interaction blocks the operator scschnet::schnet_evaluate calls these functions, L -
 * 1 times each, in the thread that called the operator. Rows are n_atoms x width values, local
 * atoms first, float or double. Plain C: hosts need no torch for it.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct scschnet_halo {
  void* context;
  /* Copies the rows of their owners into the rows of ghosts. */
  void (*forward)(void* context, void* rows, int64_t width, int is_double);
  /* Adds the rows of ghosts to those of their owners; may leave the ghosts' rows as they are. */
  void (*reverse)(void* context, void* rows, int64_t width, int is_double);
} scschnet_halo;

/* Registers the functions for the calling thread, or with NULL none; the struct is copied. */
__attribute__((visibility("default"))) void scschnet_set_halo(const scschnet_halo* halo);

#ifdef __cplusplus
}
#endif
