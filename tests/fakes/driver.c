/* A stand-in for the NVIDIA driver's two libraries, for machines without a GPU: libnvidia-ml.so.1 (nvml.h) and the
 * little of libcuda.so.1 (cuda.h) that says whether it starts. It answers from the file named in FAKE_DRIVER; see
 * driver.py, which writes that file. Signatures and codes are those of the real headers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
enum { MOST_GPUS = 16, MOST_MIG = 8 };

typedef struct {
  char uuid[96], name[96], mig[MOST_MIG][96];
  int gone, ecc, mig_mode, mig_count;
  unsigned pending, failed;
  unsigned long long since_load, lifetime, slowed, free;
} gpu_t;

static struct {
  char driver[80];
  int cuda, cuda_error, opened;
  unsigned count;
  gpu_t gpus[MOST_GPUS];
} state;

static void assign(const char *key, const char *value) {
  gpu_t *gpu = &state.gpus[state.count ? state.count - 1 : 0];
  if (!strcmp(key, "driver")) snprintf(state.driver, sizeof state.driver, "%s", value);
  else if (!strcmp(key, "cuda")) state.cuda = atoi(value);
  else if (!strcmp(key, "cuda_error")) state.cuda_error = atoi(value);
  else if (!strcmp(key, "gpu")) {
    if (state.count == MOST_GPUS) abort();
    gpu = &state.gpus[state.count++];
    memset(gpu, 0, sizeof *gpu);
    snprintf(gpu->uuid, sizeof gpu->uuid, "%s", value);
  } else if (!strcmp(key, "name")) snprintf(gpu->name, sizeof gpu->name, "%s", value);
  else if (!strcmp(key, "gone")) gpu->gone = atoi(value);
  else if (!strcmp(key, "ecc")) gpu->ecc = atoi(value);
  else if (!strcmp(key, "since_load")) gpu->since_load = strtoull(value, NULL, 10);
  else if (!strcmp(key, "lifetime")) gpu->lifetime = strtoull(value, NULL, 10);
  else if (!strcmp(key, "pending")) gpu->pending = (unsigned)atoi(value);
  else if (!strcmp(key, "failed")) gpu->failed = (unsigned)atoi(value);
  else if (!strcmp(key, "slowed")) gpu->slowed = strtoull(value, NULL, 0);
  else if (!strcmp(key, "free")) gpu->free = strtoull(value, NULL, 10);
  else if (!strcmp(key, "mig_mode")) gpu->mig_mode = atoi(value);
  else if (!strcmp(key, "mig")) {
    if (gpu->mig_count == MOST_MIG) abort();
    snprintf(gpu->mig[gpu->mig_count++], sizeof gpu->mig[0], "%s", value);
  } else abort(); /* driver.py and this file disagree */
}

static int load(void) {
  const char *path = getenv("FAKE_DRIVER");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return 0;
  memset(&state, 0, sizeof state);
  for (char line[256]; fgets(line, sizeof line, file);) {
    line[strcspn(line, "\n")] = 0;
    char *equals = strchr(line, '=');
    if (!equals) abort();
    *equals = 0;
    assign(line, equals + 1);
  }
  fclose(file);
  return 1;
}

/* A device is its gpu_t; a MIG instance is the text of its UUID. */
static gpu_t *gpu_of(void *device) {
  gpu_t *gpu = device;
  return gpu >= state.gpus && gpu < state.gpus + state.count ? gpu : NULL;
}

#define GPU(device)                         \
  gpu_t *gpu = gpu_of(device);              \
  if (!state.opened) return UNINITIALIZED;  \
  if (!gpu) return INVALID_ARGUMENT;        \
  if (gpu->gone) return gpu->gone

int nvmlInit_v2(void) {
  if (!load()) return DRIVER_NOT_LOADED;
  state.opened = 1;
  return OK;
}

int nvmlShutdown(void) {
  state.opened = 0;
  return OK;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  if (!state.opened) return UNINITIALIZED;
  snprintf(version, length, "%s", state.driver);
  return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  if (!state.opened) return UNINITIALIZED;
  *count = state.count;
  return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (!state.opened) return UNINITIALIZED;
  if (index >= state.count) return INVALID_ARGUMENT;
  if (state.gpus[index].gone) return state.gpus[index].gone;
  *device = &state.gpus[index];
  return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  if (!state.opened) return UNINITIALIZED;
  for (unsigned index = 0; index < state.count; index++)
    if (!strcmp(state.gpus[index].uuid, uuid)) return nvmlDeviceGetHandleByIndex_v2(index, device);
  return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
  if (gpu_of(device)) {
    GPU(device);
    snprintf(uuid, length, "%s", gpu->uuid);
  } else snprintf(uuid, length, "%s", (const char *)device);
  return OK;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  GPU(device);
  snprintf(name, length, "%s", gpu->name);
  return OK;
}

typedef struct { /* nvmlMemory_t */
  unsigned long long total, free, used;
} memory_t;

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  GPU(device);
  *memory = (memory_t){gpu->free, gpu->free, 0};
  return OK;
}

typedef struct { /* nvmlPciInfo_t */
  char legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
} pci_t;

int nvmlDeviceGetPciInfo_v3(void *device, pci_t *pci) {
  GPU(device);
  memset(pci, 0, sizeof *pci);
  pci->bus = 0x3b + (unsigned)(gpu - state.gpus);
  return OK;
}

int nvmlDeviceGetMigMode(void *device, unsigned *mode, unsigned *pending) {
  GPU(device);
  if (gpu->mig_mode < 0) return NOT_SUPPORTED;
  *mode = *pending = (unsigned)gpu->mig_mode;
  return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
  GPU(device);
  *count = MOST_MIG;
  return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
  GPU(device);
  if (index >= (unsigned)gpu->mig_count) return NOT_FOUND;
  *instance = gpu->mig[index];
  return OK;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count) {
  GPU(device);
  if (!gpu->ecc) return NOT_SUPPORTED;
  if (type != 1) return INVALID_ARGUMENT; /* only uncorrected errors are told here */
  *count = counter ? gpu->lifetime : gpu->since_load;
  return OK;
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
  GPU(device);
  if (!gpu->ecc) return NOT_SUPPORTED;
  *corrected = *uncorrected = 0;
  *pending = gpu->pending;
  *failed = gpu->failed;
  return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
  GPU(device);
  *reasons = gpu->slowed;
  return OK;
}

int cuInit(unsigned flags) {
  return flags ? 1 : !load() ? 100 : state.cuda_error;
}

int cuDriverGetVersion(int *version) {
  *version = state.cuda;
  return OK;
}
