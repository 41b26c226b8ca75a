//! The program's own code in memory.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]
use std::io;
use std::ops::Range;

use super::check;

/// Unmaps the pages of the program's code. What is run afterwards is mapped again as it is needed, from the page cache as a
/// rule (madvise(2), `MADV_DONTNEED`).
pub(crate) fn unmap() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let mappings = std::fs::read_to_string("/proc/self/smaps")?;
    let Some(code) = program.to_str().and_then(|path| find(&mappings, path)) else {
        return Ok(());
    };
    let start = std::ptr::without_provenance_mut(code.start);
    // SAFETY: the range is a mapping of the program's file that may not be written, and of which nobody has written a page in
    // spite of that, as debuggers do: whatever is read there afterwards is read from the file, and is the same.
    check(unsafe { libc::madvise(start, code.len(), libc::MADV_DONTNEED) }).map(drop)
}

/// Where the code of the program at `path` is mapped, by `/proc/PID/smaps` (`proc_pid_smaps(5)`); `None` when there is
/// none that is as in the file.
fn find(mappings: &str, path: &str) -> Option<Range<usize>> {
    let mut lines = mappings.lines();
    let code = lines.find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let file = rest.strip_prefix("r-xp ")?.splitn(4, ' ').nth(3)?;
        (file.trim_start() == path).then_some(range)
    })?;
    // The kernel counts pages that were written under "Anonymous", before the next mapping begins.
    let written = lines.find_map(|line| line.strip_prefix("Anonymous:"))?;
    let (start, end) = code.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    (written.trim() == "0 kB").then_some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPINGS: &str = "\
55dc00000000-55dc00100000 r--p 00000000 fe:00 17 /usr/bin/gateway
Rss:                 900 kB
Anonymous:             0 kB
55dc00100000-55dc00400000 r-xp 00100000 fe:00 17 /usr/bin/gateway
Size:               3072 kB
Rss:                2000 kB
Anonymous:             0 kB
55dc00400000-55dc00500000 rw-p 00400000 fe:00 17 /usr/bin/gateway
Anonymous:            16 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 18                         /usr/lib/libc.so.6
Anonymous:             4 kB
7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0                          [stack]
Anonymous:             4 kB
";

    #[test]
    fn code_is_found_unless_a_page_of_it_was_written() {
        let code = Some(0x55dc_0010_0000..0x55dc_0040_0000);
        assert_eq!(find(MAPPINGS, "/usr/bin/gateway"), code);
        assert_eq!(find(MAPPINGS, "/usr/lib/libc.so.6"), None);
        assert_eq!(find(MAPPINGS, "/usr/bin/lan-server"), None);
        assert_eq!(find("", "/usr/bin/gateway"), None);
    }
}
