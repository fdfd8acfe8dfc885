//! A stand-in for the library of the NVIDIA driver, so that the CUDA path runs where there is no GPU. It pretends one
//! device and counts what it is asked for. A launch computes nothing, and memory of the device is nothing but addresses:
//! whatever is read from it is zeros. It has those functions alone that the program calls; they are looked up by name
//! when they are first called.
//!
//! `rustc --edition 2024 -O --crate-type cdylib -o libcuda.so driver.rs` builds it. The environment tells it
//! `STAND_IN_MEMORY`, the bytes of the device (8 GiB if it says nothing), and `STAND_IN_COUNTS`, a file that gets the
//! counts in JSON when the process ends.
#![crate_type = "cdylib"]
#![allow(non_snake_case, reason = "the names of the driver's functions")]

use std::{
    alloc::{self, Layout},
    cell::Cell,
    collections::BTreeMap,
    env,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fs, ptr,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// What every function of the driver returns.
type Answer = c_int;

const SUCCESS: Answer = 0;
const INVALID_VALUE: Answer = 1;
const OUT_OF_MEMORY: Answer = 2;
const INVALID_DEVICE: Answer = 101;
const NOT_FOUND: Answer = 500;

/// The bytes of the device where the environment does not say.
const MEMORY: usize = 8 << 30;
/// Where a device's buffers begin: a multiple of this, as with the driver.
const ALIGNMENT: usize = 256;
/// Shared memory that a block may have.
const SHARED_MEMORY: u32 = 232_448;
/// Threads that a block may have.
const THREADS: u32 = 1024;

/// What was asked for so far.
struct Counts {
    launches: AtomicU64,
    copies_to_device: AtomicU64,
    copies_from_device: AtomicU64,
    /// By a thread that launches nothing itself: it waits for what others have launched.
    waits: AtomicU64,
    /// Those of them that had something to wait for: there was a launch since the one before.
    stops: AtomicU64,
    /// By the thread that launches.
    own_waits: AtomicU64,
    allocations: AtomicU64,
    refused: AtomicU64,
    modules: AtomicU64,
}

static COUNTS: Counts = Counts {
    launches: AtomicU64::new(0),
    copies_to_device: AtomicU64::new(0),
    copies_from_device: AtomicU64::new(0),
    waits: AtomicU64::new(0),
    stops: AtomicU64::new(0),
    own_waits: AtomicU64::new(0),
    allocations: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    modules: AtomicU64::new(0),
};

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Whether something was launched since a thread last waited for it.
static IS_BEHIND: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread launches.
    static LAUNCHES: Cell<bool> = const { Cell::new(false) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes an answer where the caller wants it.
fn give<T>(place: *mut T, value: T) -> Answer {
    if place.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place for this answer.
    unsafe { ptr::write(place, value) };
    SUCCESS
}

/// A handle that is never looked into.
fn handle() -> *mut c_void {
    ptr::without_provenance_mut(ALIGNMENT)
}

// The counts, at the end of the process.

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> c_int;
}

extern "C" fn write_counts() {
    if let Some(path) = env::var_os("STAND_IN_COUNTS") {
        let _ = fs::write(path, counts());
    }
}

/// The counts in JSON.
fn counts() -> String {
    let memory = locked(&DEVICE);
    let numbers = [
        ("launches", COUNTS.launches.load(Relaxed)),
        ("copies_to_device", COUNTS.copies_to_device.load(Relaxed)),
        ("copies_from_device", COUNTS.copies_from_device.load(Relaxed)),
        ("waits", COUNTS.waits.load(Relaxed)),
        ("stops", COUNTS.stops.load(Relaxed)),
        ("own_waits", COUNTS.own_waits.load(Relaxed)),
        ("allocations", COUNTS.allocations.load(Relaxed)),
        ("refused", COUNTS.refused.load(Relaxed)),
        ("modules", COUNTS.modules.load(Relaxed)),
        ("peak_bytes", memory.peak as u64),
    ];
    let numbers = numbers.map(|(name, number)| format!("\"{name}\":{number}")).join(",");
    let mut kernels = BTreeMap::<&str, u64>::new();
    for kernel in locked(&KERNELS).iter() {
        *kernels.entry(&kernel.name).or_default() += kernel.launches.load(Relaxed);
    }
    let kernels: Vec<String> = kernels.iter().map(|(name, number)| format!("\"{name}\":{number}")).collect();
    format!("{{{numbers},\"kernels\":{{{}}}}}\n", kernels.join(","))
}

// The driver, its words for what went wrong, and its device.

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> Answer {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // SAFETY: the library stays loaded; should it not, the system calls the function before.
        unsafe { atexit(write_counts) };
    });
    SUCCESS
}

/// In words of its own; the program shows them and reads nothing from them.
#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(answer: Answer, place: *mut *const c_char) -> Answer {
    let words = match answer {
        SUCCESS => c"no error",
        INVALID_VALUE => c"invalid argument",
        OUT_OF_MEMORY => c"out of memory",
        INVALID_DEVICE => c"invalid device ordinal",
        NOT_FOUND => c"named symbol not found",
        _ => return INVALID_VALUE,
    };
    give(place, words.as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(place: *mut c_int) -> Answer {
    give(place, 1)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(place: *mut c_int, number: c_int) -> Answer {
    if number == 0 { give(place, 0) } else { INVALID_DEVICE }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(place: *mut usize, _device: c_int) -> Answer {
    give(place, total_memory())
}

/// Those of an H100 that are asked for.
#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(place: *mut c_int, attribute: c_uint, _device: c_int) -> Answer {
    let value = match attribute {
        // Threads of a block, and of its first two dimensions.
        1..=3 => 1024,
        // Threads of its third.
        4 => 64,
        // Blocks of each dimension.
        5 => c_int::MAX,
        6 | 7 => 65_535,
        // Threads of a warp.
        10 => 32,
        // Multiprocessors.
        16 => 132,
        // The compute capability.
        75 => 9,
        76 => 0,
        // Shared memory that a block may ask for.
        97 => SHARED_MEMORY.cast_signed(),
        _ => return INVALID_VALUE,
    };
    give(place, value)
}

// Contexts: there is one, and whoever asks for it has it.

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(place: *mut *mut c_void, _device: c_int) -> Answer {
    give(place, handle())
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(_context: *mut c_void) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(place: *mut *mut c_void) -> Answer {
    give(place, handle())
}

// Streams and events: all is done at once, so that they have nothing to keep.

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(place: *mut *mut c_void, _flags: c_uint) -> Answer {
    give(place, handle())
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(_stream: *mut c_void, _event: *mut c_void, _flags: c_uint) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(place: *mut *mut c_void, _flags: c_uint) -> Answer {
    give(place, handle())
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(_event: *mut c_void) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(_event: *mut c_void, _stream: *mut c_void) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(_event: *mut c_void) -> Answer {
    waited()
}

fn waited() -> Answer {
    if LAUNCHES.get() {
        count(&COUNTS.own_waits);
        return SUCCESS;
    }
    count(&COUNTS.waits);
    if IS_BEHIND.swap(false, Relaxed) {
        count(&COUNTS.stops);
    }
    SUCCESS
}

// Memory of the device: addresses that nothing lies behind, and how many bytes are spoken for.

struct Memory {
    /// The bytes from each address on.
    blocks: BTreeMap<usize, usize>,
    next: usize,
    used: usize,
    peak: usize,
}

static DEVICE: Mutex<Memory> = Mutex::new(Memory { blocks: BTreeMap::new(), next: ALIGNMENT, used: 0, peak: 0 });

/// The bytes of the device.
fn total_memory() -> usize {
    env::var("STAND_IN_MEMORY").ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(MEMORY)
}

impl Memory {
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let used = self.used.checked_add(bytes).filter(|&used| used <= total_memory())?;
        let address = self.next;
        // One unit more, so that no two blocks touch.
        self.next = address.checked_add(bytes)?.checked_add(ALIGNMENT)?.checked_next_multiple_of(ALIGNMENT)?;
        self.blocks.insert(address, bytes);
        self.used = used;
        self.peak = self.peak.max(used);
        Some(address)
    }

    /// Whether so many bytes from an address on lie in one block.
    fn holds(&self, address: usize, bytes: usize) -> bool {
        let block = self.blocks.range(..=address).next_back();
        block.is_some_and(|(start, size)| size.checked_sub(address - start).is_some_and(|rest| bytes <= rest))
    }
}

fn allocate(place: *mut usize, bytes: usize) -> Answer {
    count(&COUNTS.allocations);
    if let Some(address) = locked(&DEVICE).take(bytes) {
        give(place, address)
    } else {
        count(&COUNTS.refused);
        OUT_OF_MEMORY
    }
}

fn free(address: usize) -> Answer {
    let mut device = locked(&DEVICE);
    let Some(bytes) = device.blocks.remove(&address) else { return INVALID_VALUE };
    device.used -= bytes;
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Answer {
    let used = locked(&DEVICE).used;
    give(free, total_memory().saturating_sub(used)).max(give(total, total_memory()))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(place: *mut usize, bytes: usize, _stream: *mut c_void) -> Answer {
    allocate(place, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(place: *mut usize, bytes: usize) -> Answer {
    allocate(place, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: usize, _stream: *mut c_void) -> Answer {
    free(address)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: usize) -> Answer {
    free(address)
}

// Memory of the host that the device reads: there it is real. It is never given back: the program keeps it for itself.

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(place: *mut *mut c_void, bytes: usize) -> Answer {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), ALIGNMENT) else { return INVALID_VALUE };
    // SAFETY: its size is not 0.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    if memory.is_null() { OUT_OF_MEMORY } else { give(place, memory.cast()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(_memory: *mut c_void) -> Answer {
    SUCCESS
}

// Copies. What is written is forgotten, what is read is zeros, and what would leave a block is refused.

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: usize, _from: *const c_void, bytes: usize, _stream: *mut c_void) -> Answer {
    count(&COUNTS.copies_to_device);
    write(to, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: usize, bytes: usize, _stream: *mut c_void) -> Answer {
    count(&COUNTS.copies_from_device);
    read(to, from, bytes)
}

fn write(to: usize, bytes: usize) -> Answer {
    if locked(&DEVICE).holds(to, bytes) { SUCCESS } else { INVALID_VALUE }
}

fn read(to: *mut u8, from: usize, bytes: usize) -> Answer {
    if to.is_null() || !locked(&DEVICE).holds(from, bytes) {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's buffer for so many bytes.
    unsafe { ptr::write_bytes(to, 0, bytes) };
    SUCCESS
}

/// `CUDA_MEMCPY2D`: rows that lie `pitch` bytes apart on either side.
#[repr(C)]
struct Rows {
    from: Side,
    to: Side,
    width: usize,
    height: usize,
}

#[repr(C)]
struct Side {
    first_byte: usize,
    first_row: usize,
    kind: c_uint,
    host: *mut u8,
    device: usize,
    array: usize,
    pitch: usize,
}

impl Side {
    const HOST: c_uint = 1;
    const DEVICE: c_uint = 2;

    /// Where a row begins, from the beginning of either memory.
    fn offset(&self, row: usize) -> usize {
        (self.first_row + row).wrapping_mul(self.pitch).wrapping_add(self.first_byte)
    }

    fn on_device(&self, row: usize) -> usize {
        self.device.wrapping_add(self.offset(row))
    }

    fn on_host(&self, row: usize) -> *mut u8 {
        self.host.wrapping_add(self.offset(row))
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2DAsync_v2(rows: *const Rows, _stream: *mut c_void) -> Answer {
    // SAFETY: the caller's description of the copy.
    let Some(Rows { from, to, width, height }) = (unsafe { rows.as_ref() }) else { return INVALID_VALUE };
    if *height > 1 && from.pitch.min(to.pitch) < *width {
        return INVALID_VALUE;
    }
    match (from.kind, to.kind) {
        (Side::HOST, Side::DEVICE) => {
            count(&COUNTS.copies_to_device);
            (0..*height).map(|row| write(to.on_device(row), *width)).max().unwrap_or(SUCCESS)
        }
        (Side::DEVICE, Side::HOST) if !to.host.is_null() => {
            count(&COUNTS.copies_from_device);
            (0..*height).map(|row| read(to.on_host(row), from.on_device(row), *width)).max().unwrap_or(SUCCESS)
        }
        _ => INVALID_VALUE,
    }
}

// Kernels.

struct Kernel {
    name: String,
    launches: AtomicU64,
}

static KERNELS: Mutex<Vec<&'static Kernel>> = Mutex::new(Vec::new());

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(place: *mut *mut c_void, _image: *const c_void) -> Answer {
    count(&COUNTS.modules);
    give(place, handle())
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(place: *mut *const Kernel, _module: *mut c_void, name: *const c_char) -> Answer {
    if name.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's name.
    let Ok(name) = (unsafe { CStr::from_ptr(name) }).to_str() else { return NOT_FOUND };
    let kernel: &Kernel = Box::leak(Box::new(Kernel { name: name.to_owned(), launches: AtomicU64::new(0) }));
    locked(&KERNELS).push(kernel);
    give(place, ptr::from_ref(kernel))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(_kernel: *const Kernel, attribute: c_uint, value: c_int) -> Answer {
    const DYNAMIC_SHARED_MEMORY: c_uint = 8;
    let is_too_much = attribute == DYNAMIC_SHARED_MEMORY && value > SHARED_MEMORY.cast_signed();
    if is_too_much { INVALID_VALUE } else { SUCCESS }
}

/// Counts it, where a device would take it.
#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    kernel: *const Kernel,
    blocks_x: c_uint,
    blocks_y: c_uint,
    blocks_z: c_uint,
    threads_x: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    shared_memory: c_uint,
    _stream: *mut c_void,
    _arguments: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Answer {
    // SAFETY: what was given out for a function stays.
    let Some(kernel) = (unsafe { kernel.as_ref() }) else { return INVALID_VALUE };
    let threads = u64::from(threads_x) * u64::from(threads_y) * u64::from(threads_z);
    let has_blocks = blocks_x > 0 && (1..=65_535).contains(&blocks_y) && (1..=65_535).contains(&blocks_z);
    if !has_blocks || !(1..=u64::from(THREADS)).contains(&threads) || shared_memory > SHARED_MEMORY {
        return INVALID_VALUE;
    }
    LAUNCHES.set(true);
    IS_BEHIND.store(true, Relaxed);
    count(&COUNTS.launches);
    count(&kernel.launches);
    SUCCESS
}

// Descriptions of tensors, for copies that the kernels themselves start: never looked into.

/// `CUtensorMap`.
#[repr(C, align(64))]
struct TensorMap([u64; 16]);

#[unsafe(no_mangle)]
extern "C" fn cuTensorMapEncodeTiled(place: *mut TensorMap) -> Answer {
    give(place, TensorMap([0; 16]))
}

#[unsafe(no_mangle)]
extern "C" fn cuTensorMapEncodeIm2col(place: *mut TensorMap) -> Answer {
    give(place, TensorMap([0; 16]))
}
