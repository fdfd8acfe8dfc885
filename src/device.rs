//! Where the numbers are computed: the CPU, or a CUDA device where the machine has one. The backend is chosen here,
//! once; all else is generic over it.

use burn::backend::Flex;

use crate::{
    choices::{Device, Devices},
    ops::TrainOps,
};

/// A device that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedDevice {
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl std::fmt::Display for ResolvedDevice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

/// A device that was asked for and is not there.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// CUDA cannot be used at all.
    #[error("no CUDA device can be used: {reason}; use --device cpu, or auto to take what is there")]
    NoCuda { reason: String },
    /// There are fewer devices.
    #[error("there is no cuda:{number}: this machine has {count} CUDA device(s), numbered from 0")]
    NoSuchDevice { number: usize, count: usize },
}

/// How many CUDA devices there are, or why there are none. Starts nothing on them.
///
/// # Errors
/// The program was built without CUDA, or the machine has no driver, no device, or no CUDA headers to compile kernels.
pub fn cuda_devices() -> Result<usize, String> {
    cuda::devices()
}

/// Free and total bytes of a CUDA device; `None` if it cannot be asked.
pub fn cuda_memory(number: usize) -> Option<(u64, u64)> {
    cuda::memory(number)
}

/// The device to use.
///
/// # Errors
/// A CUDA device was asked for by name and is not there.
pub fn choose(device: Device) -> Result<ResolvedDevice, DeviceError> {
    match device {
        Device::Cpu => Ok(ResolvedDevice::Cpu),
        Device::Auto => {
            Ok(if cuda_devices().is_ok_and(|count| count > 0) { ResolvedDevice::Cuda(0) } else { ResolvedDevice::Cpu })
        }
        Device::Cuda(number) => match cuda_devices() {
            Err(reason) => Err(DeviceError::NoCuda { reason }),
            Ok(count) if number >= count => Err(DeviceError::NoSuchDevice { number, count }),
            Ok(_) => Ok(ResolvedDevice::Cuda(number)),
        },
    }
}

/// The devices that train together; all of one kind.
///
/// # Errors
/// A CUDA device was asked for by name and is not there.
pub fn choose_all(devices: &Devices) -> Result<Vec<ResolvedDevice>, DeviceError> {
    devices.all().iter().map(|&device| choose(device)).collect()
}

/// Several devices in words.
pub fn names(chosen: &[ResolvedDevice]) -> String {
    chosen.iter().map(ResolvedDevice::to_string).collect::<Vec<_>>().join(" and ")
}

/// Work that runs on whichever backend was chosen.
pub trait Task {
    /// What it comes to.
    type Output;

    /// Does it on one backend.
    fn run<B: TrainOps>(self, device: &B::Device) -> Self::Output;
}

/// Work that several devices of one backend share.
pub trait SharedTask {
    /// What it comes to.
    type Output;

    /// Does it; there is at least one device.
    fn run<B: TrainOps>(self, devices: &[B::Device]) -> Self::Output;
}

/// Runs a shared task on devices of one kind, as [`choose_all`] gives them.
pub fn dispatch_all<T: SharedTask>(chosen: &[ResolvedDevice], task: T) -> T::Output {
    #[cfg(feature = "cuda")]
    if let Some(ResolvedDevice::Cuda(_)) = chosen.first() {
        let number = |chosen: &ResolvedDevice| if let ResolvedDevice::Cuda(number) = chosen { *number } else { 0 };
        let numbers: Vec<usize> = chosen.iter().map(number).collect();
        cuda::settle(&numbers);
        let devices: Vec<_> = numbers.into_iter().map(burn::backend::cuda::CudaDevice::new).collect();
        return task.run::<clasp_cuda::Cuda>(&devices);
    }
    task.run::<Flex>(&vec![burn::backend::flex::FlexDevice; chosen.len()])
}

/// Runs a task on a device that is there.
pub fn dispatch<T: Task>(chosen: ResolvedDevice, task: T) -> T::Output {
    match chosen {
        #[cfg(feature = "cuda")]
        ResolvedDevice::Cuda(number) => {
            cuda::settle(&[number]);
            task.run::<clasp_cuda::Cuda>(&burn::backend::cuda::CudaDevice::new(number))
        }
        #[cfg(not(feature = "cuda"))]
        ResolvedDevice::Cuda(_) => task.run::<Flex>(&burn::backend::flex::FlexDevice),
        ResolvedDevice::Cpu => task.run::<Flex>(&burn::backend::flex::FlexDevice),
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::{
        path::{Path, PathBuf},
        sync::Once,
    };

    use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig as _, cache::CacheConfig};
    use cudarc::driver::{result, sys};

    /// Where the backend looks for the toolkit if `CUDA_PATH` is not set.
    const TOOLKITS: [&str; 2] = ["/usr/local/cuda", "/opt/cuda"];
    /// The compiler of a toolkit that is installed for all users.
    const COMPILER: &str = "/usr/bin/nvcc";
    /// Headers without which kernels do not compile; without the last one those of the tensor cores do not, and slower ones
    /// take their place in silence.
    const HEADERS: [&str; 4] = ["cuda_fp16.h", "cuda_bf16.h", "mma.h", "crt/mma.h"];
    /// Kernels are kept only where the disk has this many bytes left: the backend's thread does not survive a full one.
    const ROOM: u64 = 4 << 30;

    pub fn devices() -> Result<usize, String> {
        // Asked for first: the driver's functions panic where its library is missing.
        // SAFETY: it only tries to open the library.
        if !unsafe { sys::is_culib_present() } {
            return Err("the NVIDIA driver library is not installed".into());
        }
        result::init().map_err(|error| format!("the NVIDIA driver does not start ({error:?})"))?;
        let count = result::device::get_count().map_err(|error| format!("no device can be counted ({error:?})"))?;
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err("the machine has none".into());
        }
        // SAFETY: it only tries to open the library.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            return Err("the CUDA toolkit's compiler library (libnvrtc) is not installed".into());
        }
        let toolkit = toolkit(std::env::var_os("CUDA_PATH")).ok_or("the CUDA toolkit's headers are not installed")?;
        match missing_header(&toolkit) {
            Some(header) => Err(format!(
                "the CUDA toolkit's header {} is missing: install the whole toolkit, or set CUDA_PATH to one",
                toolkit.join("include").join(header).display()
            )),
            None => Ok(count),
        }
    }

    /// The folder of the toolkit that the backend takes (`cubecl-cuda`, `install::cuda_path`).
    fn toolkit(named: Option<std::ffi::OsString>) -> Option<PathBuf> {
        let installed = || TOOLKITS.iter().map(PathBuf::from).find(|path| path.exists());
        let of_all = || Path::new(COMPILER).exists().then(|| PathBuf::from("/usr"));
        named.map(PathBuf::from).or_else(installed).or_else(of_all)
    }

    fn missing_header(toolkit: &Path) -> Option<&'static str> {
        HEADERS.into_iter().find(|header| !toolkit.join("include").join(header).is_file())
    }

    pub fn memory(number: usize) -> Option<(u64, u64)> {
        // SAFETY: it only tries to open the library.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        result::init().ok()?;
        let device = result::device::get(i32::try_from(number).ok()?).ok()?;
        // SAFETY: the device is there. The primary context is the one that the backend works in: where it is in use
        // this counts one user more, and less again below.
        let context = unsafe { result::primary_ctx::retain(device) }.ok()?;
        // SAFETY: the context lives until it is released below; what was current in this thread is so again
        // afterwards.
        let found = unsafe {
            let is_pushed = sys::cuCtxPushCurrent_v2(context).result().is_ok();
            let found = if is_pushed { result::mem_get_info().ok() } else { None };
            if is_pushed {
                let mut popped = std::ptr::null_mut();
                let _ = sys::cuCtxPopCurrent_v2(&raw mut popped);
            }
            let _ = result::primary_ctx::release(device);
            found
        };
        let (free, total) = found?;
        Some((u64::try_from(free).ok()?, u64::try_from(total).ok()?))
    }

    /// Has which kernels were the fastest kept in the user's cache for the next process, and the compiled ones, which take
    /// minutes. Left to itself the backend keeps the former in `target` of whichever Rust project it is run in, and the
    /// latter nowhere.
    pub fn settle(numbers: &[usize]) {
        static SETTLED: Once = Once::new();
        // The backend reads its settings when its first device is used, and takes no others then.
        SETTLED.call_once(|| {
            let cache = crate::files::user_cache();
            let kernels = kernels_of(numbers).map(|name| cache.join("kernels").join(name));
            CubeClRuntimeConfig::set(settings(&cache.join("autotune"), kernels.filter(|folder| has_room(folder))));
        });
    }

    fn settings(choices: &Path, kernels: Option<PathBuf>) -> CubeClRuntimeConfig {
        let mut settings = CubeClRuntimeConfig::default().override_from_env();
        settings.autotune.cache = CacheConfig::File(choices.to_owned());
        settings.compilation.cache = kernels.map(CacheConfig::File);
        settings
    }

    /// What compiled kernels depend on: the program, the kind of device and the compiler. `None` if the devices are
    /// of several kinds, which the backend does not tell apart.
    fn kernels_of(numbers: &[usize]) -> Option<String> {
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let kind = |&number: &usize| -> Option<(i32, i32)> {
            let device = result::device::get(i32::try_from(number).ok()?).ok()?;
            let attribute = |which| {
                // SAFETY: the device is there.
                unsafe { result::device::get_attribute(device, which) }.ok()
            };
            Some((attribute(MAJOR)?, attribute(MINOR)?))
        };
        let kinds: Vec<_> = numbers.iter().map(kind).collect::<Option<_>>()?;
        let (major, minor) = *kinds.first().filter(|first| kinds.iter().all(|kind| kind == *first))?;
        let (mut compiler, mut release) = (0, 0);
        // SAFETY: the library is there, and so are the places for the answer.
        unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut compiler, &raw mut release) }.result().ok()?;
        Some(format!("{}-sm_{major}{minor}-nvrtc_{compiler}.{release}", env!("CARGO_PKG_VERSION")))
    }

    /// Whether a folder can be written to and its disk is not nearly full.
    fn has_room(folder: &Path) -> bool {
        std::fs::create_dir_all(folder).is_ok()
            && tempfile::tempfile_in(folder).is_ok()
            && rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn choices_and_kernels_are_kept_in_their_folders() {
            let (choices, kernels) = (Path::new("/cache/autotune"), PathBuf::from("/cache/kernels/sm_90-nvrtc_13.0"));
            let kept = settings(choices, Some(kernels.clone()));
            assert_eq!(kept.autotune.cache.root(), choices);
            assert_eq!(kept.compilation.cache.map(|cache| cache.root()), Some(kernels));
            assert!(settings(choices, None).compilation.cache.is_none());
        }

        #[test]
        fn a_toolkit_without_all_of_its_headers_is_told() {
            let folder = tempfile::tempdir().unwrap();
            let include = folder.path().join("include");
            std::fs::create_dir_all(include.join("crt")).unwrap();
            for header in HEADERS {
                assert_eq!(missing_header(folder.path()), Some(header));
                std::fs::write(include.join(header), "").unwrap();
            }
            assert_eq!(missing_header(folder.path()), None);
            // What is named is taken, whether or not it is there: the backend does the same.
            assert_eq!(toolkit(Some("/no/such".into())), Some(PathBuf::from("/no/such")));
        }

        #[test]
        fn kernels_are_kept_only_where_they_can_be_written() {
            let folder = tempfile::tempdir().unwrap();
            assert!(has_room(&folder.path().join("kernels")));
            std::fs::write(folder.path().join("file"), "").unwrap();
            assert!(!has_room(&folder.path().join("file/kernels")));
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    pub fn devices() -> Result<usize, String> {
        Err("this program was built without the feature `cuda`".into())
    }

    pub fn memory(_: usize) -> Option<(u64, u64)> {
        None
    }
}
