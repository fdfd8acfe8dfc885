//! What Linux says of memory in its files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the files are.
pub struct Files {
    proc: PathBuf,
    control_groups: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { proc: "/proc".into(), control_groups: "/sys/fs/cgroup".into() }
    }
}

/// The names of a control group's files, of both versions of the interface.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// What of that the kernel takes back before it refuses anything, in `memory.stat`.
    reclaimable: &'static str,
}

const VERSION_1: Names =
    Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };
const VERSION_2: Names = Names { limit: "memory.max", used: "memory.current", reclaimable: "inactive_file" };

impl Files {
    /// A number of `/proc/self/status`, in bytes.
    pub fn status(&self, key: &str) -> Option<u64> {
        number_of(&fs::read_to_string(self.proc.join("self/status")).ok()?, key).map(|kib| kib << 10)
    }

    /// See [`super::available`].
    pub fn available(&self) -> Option<u64> {
        let system = number_of(&fs::read_to_string(self.proc.join("meminfo")).ok()?, "MemAvailable")? << 10;
        let limits = [self.of_control_groups(), self.of_address_space()];
        Some(limits.into_iter().flatten().fold(system, u64::min))
    }

    /// What the limit on the address space leaves.
    fn of_address_space(&self) -> Option<u64> {
        let limits = fs::read_to_string(self.proc.join("self/limits")).ok()?;
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
        let limit: u64 = limit.split_whitespace().next()?.parse().ok()?; // "unlimited" is no number
        Some(limit.saturating_sub(self.status("VmSize")?))
    }

    /// What the tightest of the process's control groups leaves.
    fn of_control_groups(&self) -> Option<u64> {
        let groups = fs::read_to_string(self.proc.join("self/cgroup")).ok()?;
        groups.lines().filter_map(|line| self.of_control_group(line)).min()
    }

    /// The same of one line of `/proc/self/cgroup`: `hierarchy:controllers:path`; version 2 names no controllers.
    fn of_control_group(&self, line: &str) -> Option<u64> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, names) = if controllers.is_empty() {
            (self.control_groups.clone(), VERSION_2)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (self.control_groups.join("memory"), VERSION_1)
        } else {
            return None;
        };
        // A container sees its own group as the root, whatever it is called outside. The groups above limit too.
        let own = root.join(path.trim_start_matches('/'));
        let groups = own.ancestors().take_while(|group| group.starts_with(&root));
        groups.filter_map(|group| left_of(group, &names)).min()
    }
}

/// What one control group leaves; `None` if it has no limit.
fn left_of(group: &Path, names: &Names) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let limit: u64 = read(names.limit)?.trim().parse().ok()?; // "max" is no number
    let used: u64 = read(names.used)?.trim().parse().ok()?;
    let statistics = read("memory.stat").unwrap_or_default();
    let reclaimable = number_of(&statistics, names.reclaimable).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

/// The number behind a word at the beginning of a line.
fn number_of(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| (words.next()?.trim_end_matches(':') == key).then(|| words.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A system that says what these files hold.
    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = Files { proc: folder.path().join("proc"), control_groups: folder.path().join("groups") };
        (folder, files)
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       24000000 kB\nMemFree:  1000 kB\nMemAvailable:   4194304 kB\n");

    #[test]
    fn without_limits_it_is_what_the_system_has_left() {
        let unlimited = "Limit  Soft Limit  Hard Limit  Units\nMax address space  unlimited  unlimited  bytes\n";
        let (_folder, files) = system(&[MEMINFO, ("proc/self/limits", unlimited)]);
        assert_eq!(files.available(), Some(4096 * MIB));
        let (_folder, files) = system(&[]);
        assert_eq!((files.available(), files.status("VmRSS")), (None, None));
    }

    #[test]
    fn the_address_space_limits_it() {
        let (_folder, files) = system(&[
            MEMINFO,
            ("proc/self/status", "Name:\tclasp\nVmSize:\t 1048576 kB\nVmHWM:\t  2048 kB\nVmRSS:\t    1024 kB\n"),
            ("proc/self/limits", "Max address space         2147483648           unlimited            bytes     \n"),
        ]);
        assert_eq!(files.available(), Some(1024 * MIB));
        assert_eq!((files.status("VmRSS"), files.status("VmHWM")), (Some(MIB), Some(2 * MIB)));
    }

    #[test]
    fn the_tightest_control_group_limits_it_and_cached_files_do_not_count() {
        let (_folder, files) = system(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/jobs/one\n"),
            ("groups/memory.stat", "anon 5\n"),
            ("groups/jobs/memory.max", "1073741824\n"),
            ("groups/jobs/memory.current", "943718400\n"),
            ("groups/jobs/memory.stat", "anon 1\ninactive_file 419430400\nactive_file 7\n"),
            ("groups/jobs/one/memory.max", "max\n"),
            ("groups/jobs/one/memory.current", "10\n"),
        ]);
        // 1024 MiB, less 900 in use, of which 400 are files that nobody reads.
        assert_eq!(files.available(), Some(524 * MIB));
    }

    #[test]
    fn the_older_control_groups_are_read_too() {
        let (_folder, files) = system(&[
            MEMINFO,
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/container/abc\n0::/\n"),
            ("groups/memory/memory.limit_in_bytes", "209715200\n"),
            ("groups/memory/memory.usage_in_bytes", "104857600\n"),
            ("groups/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 1048576\n"),
        ]);
        assert_eq!(files.available(), Some(101 * MIB));
    }

    #[test]
    fn this_process_has_a_size() {
        let (now, most) = (super::super::resident().unwrap(), super::super::peak().unwrap());
        assert!(MIB < now && now <= most, "{now} {most}");
        assert!(super::super::available().unwrap() > MIB);
    }
}
