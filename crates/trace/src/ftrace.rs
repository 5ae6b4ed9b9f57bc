//! Lines of the events that the kernel does not print by their formats: events of ftrace itself, and system calls
//! (`kernel/trace/trace_output.c` and `trace_syscalls.c`, 6.1 to 7.3).

use crate::bytes::{uint_at, until_nul};
use crate::format::{EventFormat, Field};
use crate::meta::ArrayMeta;
use crate::names::Names;
use crate::printf::binary;
use crate::ring::Event;
use crate::value::{hex, time};
use std::fmt::Write;

/// Most arguments of a function that are recorded (`FTRACE_REGS_MAX_ARGS` on x86).
const MAX_ARGUMENTS: usize = 6;

/// An event with all that its line depends on.
pub(crate) struct Line<'a> {
    pub names: &'a Names,
    pub format: &'a EventFormat,
    pub event: &'a Event<'a>,
    /// The array of the event, if it is known.
    pub array: Option<&'a ArrayMeta>,
    /// Version of the kernel.
    pub version: (u32, u32),
}

impl Line<'_> {
    /// Returns the line behind task, CPU and time; `None` if the event is printed by its format.
    pub fn body(&self) -> Option<String> {
        match self.format.system.as_str() {
            "ftrace" => self.ftrace(),
            "syscalls" => self.system_call(),
            _ => None,
        }
    }

    fn word(&self, name: &str) -> Option<u64> {
        self.format.field(name)?.integer(self.event.data)
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.format.field(name)?.bytes(self.event.data)
    }

    fn option(&self, name: &str, default: bool) -> bool {
        self.array
            .map_or(default, |array| array.option(name, default))
    }

    /// An address as `seq_print_ip_sym` shows it.
    fn symbol(&self, address: u64) -> String {
        if address == 0 {
            return "0".to_owned();
        }
        let name = if self.option("sym-offset", false) {
            self.names.symbol_offset(address)
        } else {
            self.names.symbol(address)
        };
        if self.option("sym-addr", false) {
            format!("{name} <{address:016x}>")
        } else {
            name
        }
    }

    fn ftrace(&self) -> Option<String> {
        Some(match self.format.name.as_str() {
            "function" => self.function(self.arguments("args")),
            "func_repeats" => {
                let delta = (self.word("top_delta_ts")? << 32) | self.word("bottom_delta_ts")?;
                let then = self.event.time.wrapping_sub(delta);
                format!(
                    "{} (repeats: {}, last_ts: {})",
                    self.function(None),
                    self.word("count")?,
                    time(then, self.array.is_none_or(ArrayMeta::in_ns))
                )
            }
            "print" => {
                let text = String::from_utf8_lossy(until_nul(self.bytes("buf")?));
                format!("{}: {text}", self.symbol(self.word("ip")?))
            }
            "bputs" => format!(
                "{}: {}",
                self.symbol(self.word("ip")?),
                self.names.printk(self.word("str")?)?
            ),
            "bprint" => {
                let template = self.names.printk(self.word("fmt")?)?;
                let text = binary(template, self.bytes("buf")?, self.names)?;
                format!("{}: {text}", self.symbol(self.word("ip")?))
            }
            "kernel_stack" => self.kernel_stack()?,
            "user_stack" => self.user_stack()?,
            "raw_data" => {
                let bytes = hex(self.bytes("buf")?, " ");
                let space = if bytes.is_empty() { "" } else { " " };
                format!("# {:x} buf:{space}{bytes}", self.word("id")?)
            }
            "hwlat" => self.hwlat()?,
            "osnoise" => self.osnoise()?,
            "timerlat" => {
                let context = ["irq", "thread", "user-ret"];
                let context = usize::try_from(self.word("context")?)
                    .ok()
                    .and_then(|at| context.get(at));
                format!(
                    "#{:<5} context {:>6} timer_latency {:>9} ns",
                    self.word("seqnum")?,
                    context.unwrap_or(&"?"),
                    self.word("timer_latency")?
                )
            }
            _ => return None,
        })
    }

    /// A function, its arguments if they were recorded, and its caller.
    fn function(&self, arguments: Option<String>) -> String {
        let address = |name| self.word(name).unwrap_or(0);
        let mut out = self.symbol(address("ip"));
        out.push_str(&arguments.unwrap_or_default());
        let parent = address("parent_ip");
        if self.option("print-parent", true) && parent != 0 {
            let _ = write!(out, " <-{}", self.symbol(parent));
        }
        out
    }

    /// Returns the arguments of a function, in parentheses; `None` if they were not recorded. The kernel names them by
    /// its own types of functions; here they are numbers.
    pub fn arguments(&self, field: &str) -> Option<String> {
        let bytes = self.bytes(field)?;
        if bytes.len() < MAX_ARGUMENTS * 8 {
            return None;
        }
        let arguments: Vec<String> = bytes
            .chunks_exact(8)
            .take(MAX_ARGUMENTS)
            .filter_map(|word| uint_at(word, 0, 8))
            .map(|word| format!("{word:#x}"))
            .collect();
        Some(format!("({})", arguments.join(", ")))
    }

    fn kernel_stack(&self) -> Option<String> {
        let callers = self.event.data.get(self.format.field("caller")?.offset..)?;
        let mut out = String::from("<stack trace>");
        for caller in callers.chunks_exact(8).filter_map(|c| uint_at(c, 0, 8)) {
            match caller {
                u64::MAX => break,
                // `FTRACE_TRAMPOLINE_MARKER` (INT_MAX), kernel/trace/trace.h.
                0x7fff_ffff => out.push_str("\n => [FTRACE TRAMPOLINE]"),
                value => {
                    let _ = write!(out, "\n => {}", self.symbol(value));
                }
            }
        }
        Some(out)
    }

    /// Returns the lines of a user stack. Files and offsets in them (option `sym-userobj`) belong to a process that has
    /// ended, so addresses are shown without them.
    fn user_stack(&self) -> Option<String> {
        let mut out = String::from("<user stack trace>");
        for caller in self.bytes("caller")?.chunks_exact(8) {
            match uint_at(caller, 0, 8)? {
                0 => break,
                address => {
                    let _ = write!(out, "\n =>  <{address:016x}>");
                }
            }
        }
        Some(out)
    }

    fn hwlat(&self) -> Option<String> {
        let mut out = format!(
            "#{:<5} inner/outer(us): {:>4}/{:<5} ts:{}.{:09} count:{}",
            self.word("seqnum")?,
            self.word("duration")?,
            self.word("outer_duration")?,
            self.word("tv_sec")?.cast_signed(),
            self.word("tv_nsec")?,
            self.word("count")?
        );
        let count = self.word("nmi_count")?;
        if count > 0 {
            // Without CONFIG_GENERIC_SCHED_CLOCK, as on x86.
            let total = self.word("nmi_total_ts")?;
            let _ = write!(out, " nmi-total:{total} nmi-count:{count}");
        }
        Some(out)
    }

    fn osnoise(&self) -> Option<String> {
        let (runtime, noise) = (self.word("runtime")?, self.word("noise")?);
        let ratio = runtime
            .wrapping_sub(noise)
            .wrapping_mul(10_000_000)
            .checked_div(runtime)?;
        let (whole, rest) = (ratio / 100_000, ratio % 100_000);
        let mut out = format!(
            "{runtime} {noise:>10} {whole:>3}.{rest:05} {:>7}",
            self.word("max_sample")?
        );
        for name in ["hw", "nmi", "irq", "softirq", "thread"] {
            let _ = write!(out, " {:>6}", self.word(&format!("{name}_count"))?);
        }
        Some(out)
    }

    fn system_call(&self) -> Option<String> {
        if let Some(name) = self.format.name.strip_prefix("sys_exit_") {
            return Some(format!("sys_{name} -> {:#x}", self.word("ret")?));
        }
        let name = self.format.name.strip_prefix("sys_enter_")?;
        // Since 6.19 the bytes that the kernel copied from an argument's address have a separate field, `__NAME_val`.
        let arguments = self
            .format
            .own_fields()
            .filter(|field| !field.name.starts_with("__"));
        let openat = self.format.print.as_ref().is_some_and(|print| {
            print
                .template
                .windows(11)
                .any(|part| part == b"flags: %s%s")
        });
        let mut out = format!("sys_{name}(");
        for (index, field) in arguments.enumerate() {
            let value = field.integer(self.event.data)?;
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(out, "{comma}{}: ", field.name);
            match (openat, index) {
                (true, 2) => {
                    out.push_str(&open_flags(value));
                    // The mode has no meaning if the call does not create a file.
                    if value & 0x41_0040 == 0 {
                        break;
                    }
                }
                (true, 3) => {
                    let _ = write!(out, "0{:03o}", value & 0xffff_ffff);
                }
                (true, _) => {
                    let _ = write!(out, "{value}");
                }
                (false, _) if self.version < (6, 19) => {
                    let _ = write!(out, "{value:x}");
                }
                (false, _) if value < 10 => {
                    let _ = write!(out, "{value}");
                }
                (false, _) => {
                    let _ = write!(out, "{value:#x}");
                }
            }
            if let Some(copied) = self.format.field(&format!("__{}_val", field.name)) {
                out.push_str(&self.copied(copied)?);
            }
        }
        out.push(')');
        Some(out)
    }

    /// Returns the data that an argument of a system call pointed to, as text or as bytes.
    fn copied(&self, field: &Field) -> Option<String> {
        let bytes = field.bytes(self.event.data)?;
        let print = self.format.print.as_ref()?;
        let is_bytes = print.arguments.iter().any(|argument| {
            use crate::expr::Expr;
            matches!(argument, Expr::Call(name, names) if name == "__print_dynamic_array"
                && names.first() == Some(&Expr::Name(field.name.clone())))
        });
        if !is_bytes {
            let text = String::from_utf8_lossy(until_nul(bytes));
            return Some(format!(" \"{text}\""));
        }
        let mut out = format!(" ({})", hex(bytes, ":"));
        let printable = |byte: &u8| (b' '..=b'~').contains(byte);
        if bytes.iter().any(printable) {
            let text: String = bytes
                .iter()
                .map(|byte| {
                    if printable(byte) {
                        char::from(*byte)
                    } else {
                        '.'
                    }
                })
                .collect();
            let _ = write!(out, " \"{text}\"");
        }
        Some(out)
    }
}

/// Flags of open(2) on x86 (`sys_enter_openat_print`, `kernel/trace/trace_syscalls.c`, 7.3).
fn open_flags(bits: u64) -> String {
    const FLAGS: [(u64, &str); 16] = [
        (0x41_0000, "O_TMPFILE"),
        (0x1, "O_WRONLY"),
        (0x2, "O_RDWR"),
        (0x40, "O_CREAT"),
        (0x80, "O_EXCL"),
        (0x100, "O_NOCTTY"),
        (0x200, "O_TRUNC"),
        (0x400, "O_APPEND"),
        (0x800, "O_NONBLOCK"),
        (0x1000, "O_DSYNC"),
        (0x4000, "O_DIRECT"),
        (0x8000, "O_LARGEFILE"),
        (0x1_0000, "O_DIRECTORY"),
        (0x2_0000, "O_NOFOLLOW"),
        (0x4_0000, "O_NOATIME"),
        (0x8_0000, "O_CLOEXEC"),
    ];
    // The kernel passes an int.
    let bits = bits & 0xffff_ffff;
    if bits == 0 {
        return "O_RDONLY".to_owned();
    }
    let mut shown: Vec<String> = Vec::new();
    if bits & 3 == 0 {
        shown.push("O_RDONLY".to_owned());
    }
    let mut rest = bits;
    for (mask, name) in FLAGS {
        if rest & mask == mask {
            rest &= !mask;
            shown.push(name.to_owned());
        }
    }
    if rest != 0 {
        shown.push(format!("{rest:#x}"));
    }
    shown.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n";

    fn line(
        system: &str,
        name: &str,
        fields: &str,
        print: &str,
        data: &[u8],
        version: (u32, u32),
    ) -> Option<String> {
        let text = format!("name: {name}\nID: 7\nformat:\n{COMMON}{fields}\nprint fmt: {print}\n");
        let format = EventFormat::parse(system, &text).unwrap();
        let names = Names::parse(
            "",
            "",
            "",
            "ffffffff81000000 T start\nffffffff81000100 T next\nffffffff81000200 T end\n",
        );
        let event = Event {
            time: 5_000_000_000,
            data,
            at: 0,
        };
        let array = ArrayMeta {
            clock: "local".to_owned(),
            ..ArrayMeta::default()
        };
        Line {
            names: &names,
            format: &format,
            event: &event,
            array: Some(&array),
            version,
        }
        .body()
    }

    /// `field:TYPE NAME` with offset and size, one after the other from byte 8 on.
    fn fields(list: &[(&str, usize)]) -> String {
        let mut at = 8;
        let mut out = String::new();
        for (declaration, size) in list {
            let _ = writeln!(
                out,
                "\tfield:{declaration};\toffset:{at};\tsize:{size};\tsigned:0;"
            );
            at += size;
        }
        out
    }

    fn words(values: &[u64]) -> Vec<u8> {
        let mut out = vec![0; 8];
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        out
    }

    fn ftrace(name: &str, list: &[(&str, usize)], data: &[u8]) -> Option<String> {
        line("ftrace", name, &fields(list), "\"\"", data, (6, 1))
    }

    #[test]
    fn functions() {
        let two = [("unsigned long ip", 8), ("unsigned long parent_ip", 8)];
        let (start, next) = (0xffff_ffff_8100_0010, 0xffff_ffff_8100_0110);
        let shown = |list: &[(&str, usize)], values: &[u64]| {
            ftrace("function", list, &words(values)).unwrap()
        };
        assert_eq!(shown(&two, &[start, next]), "start <-next");
        assert_eq!(shown(&two, &[start, 0]), "start");
        let more = [two[0], two[1], ("unsigned long args[]", 0)];
        assert_eq!(
            shown(&more, &[start, next, 1, 2, 3, 4, 5, 0xf]),
            "start(0x1, 0x2, 0x3, 0x4, 0x5, 0xf) <-next"
        );
        assert_eq!(shown(&more, &[start, next]), "start <-next");
        let repeats = [
            two[0],
            two[1],
            ("u16 count", 2),
            ("u16 top_delta_ts", 2),
            ("u32 bottom_delta_ts", 4),
        ];
        let mut data = words(&[start, next]);
        data.extend([3, 0, 0, 0]);
        data.extend(1_000_000u32.to_le_bytes());
        assert_eq!(
            ftrace("func_repeats", &repeats, &data).unwrap(),
            "start <-next (repeats: 3, last_ts:     4.999000)"
        );
    }

    #[test]
    fn what_tracers_write() {
        let stack = [("unsigned int tgid", 8), ("unsigned long caller[8]", 64)];
        assert_eq!(
            ftrace(
                "user_stack",
                &stack,
                &words(&[1, 0x7fff_1234, 0x55, 0, 7, 0, 0, 0, 0])
            )
            .unwrap(),
            "<user stack trace>\n =>  <000000007fff1234>\n =>  <0000000000000055>"
        );
        let raw = [("unsigned int id", 4), ("char buf[]", 0)];
        let mut data = vec![0; 8];
        data.extend([0x2a, 0, 0, 0, 1, 0xff]);
        assert_eq!(ftrace("raw_data", &raw, &data).unwrap(), "# 2a buf: 01 ff");
        let hwlat = [
            ("u64 duration", 8),
            ("u64 outer_duration", 8),
            ("u64 nmi_total_ts", 8),
            ("s64 tv_sec", 8),
            ("long tv_nsec", 8),
            ("unsigned int nmi_count", 4),
            ("unsigned int seqnum", 4),
            ("unsigned int count", 8),
        ];
        let lat = |nmis: u64| words(&[12, 13, 99, 1, 5, nmis | (7 << 32), 2]);
        assert_eq!(
            ftrace("hwlat", &hwlat, &lat(0)).unwrap(),
            "#7     inner/outer(us):   12/13    ts:1.000000005 count:2"
        );
        assert!(
            ftrace("hwlat", &hwlat, &lat(4))
                .unwrap()
                .ends_with(" count:2 nmi-total:99 nmi-count:4")
        );
        let noise: Vec<(&str, usize)> = [
            "u64 noise",
            "u64 runtime",
            "u64 max_sample",
            "u64 hw_count",
            "u64 nmi_count",
            "u64 irq_count",
            "u64 softirq_count",
            "u64 thread_count",
        ]
        .map(|name| (name, 8))
        .to_vec();
        assert_eq!(
            ftrace(
                "osnoise",
                &noise,
                &words(&[20_000, 1_000_000, 17, 1, 2, 3, 4, 5])
            )
            .unwrap(),
            "1000000      20000  98.00000      17      1      2      3      4      5"
        );
        assert_eq!(ftrace("osnoise", &noise, &words(&[0; 8])), None);
        let timer = [
            ("unsigned int seqnum", 4),
            ("int context", 4),
            ("u64 timer_latency", 8),
        ];
        assert_eq!(
            ftrace("timerlat", &timer, &words(&[3 | (1 << 32), 1234])).unwrap(),
            "#3     context thread timer_latency      1234 ns"
        );
    }

    #[test]
    fn system_calls() {
        let list = [
            ("int __syscall_nr", 8),
            ("int dfd", 8),
            ("const char * filename", 8),
            ("int flags", 8),
            ("umode_t mode", 8),
        ];
        let data = words(&[257, 0xffff_ff9c, 0x7ffc_1000, 0x8000, 0]);
        let plain = |version| {
            line(
                "syscalls",
                "sys_enter_openat",
                &fields(&list),
                "\"dfd: 0x%08lx\", 1",
                &data,
                version,
            )
            .unwrap()
        };
        assert_eq!(
            plain((6, 12)),
            "sys_openat(dfd: ffffff9c, filename: 7ffc1000, flags: 8000, mode: 0)"
        );
        assert_eq!(
            plain((6, 19)),
            "sys_openat(dfd: 0xffffff9c, filename: 0x7ffc1000, flags: 0x8000, mode: 0)"
        );
        let exit = fields(&[("int __syscall_nr", 8), ("long ret", 8)]);
        assert_eq!(
            line(
                "syscalls",
                "sys_exit_openat",
                &exit,
                "\"\"",
                &words(&[257, 3]),
                (6, 1)
            )
            .unwrap(),
            "sys_openat -> 0x3"
        );
        // With the string that the kernel copied, and flags by their names.
        let mut with = fields(&list);
        with.push_str(
            "\tfield:__data_loc char[] __filename_val;\toffset:48;\tsize:4;\tsigned:0;\n",
        );
        let print = r#""flags: %s%s", "", "", __get_str(__filename_val)"#;
        let open = |flags: u64, mode: u64| {
            let mut data = words(&[257, 3, 0x10, flags, mode]);
            data.extend(((4u32 << 16) | 52).to_le_bytes());
            data.extend(b"/a\0\0");
            line("syscalls", "sys_enter_openat", &with, print, &data, (7, 3)).unwrap()
        };
        assert_eq!(
            open(0, 0),
            "sys_openat(dfd: 3, filename: 16 \"/a\", flags: O_RDONLY)"
        );
        assert_eq!(
            open(0x8_0241, 0o644),
            "sys_openat(dfd: 3, filename: 16 \"/a\", flags: O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, mode: 0644)"
        );
        let mut write = fields(&[
            ("int __syscall_nr", 8),
            ("int fd", 8),
            ("const char * buf", 8),
            ("size_t count", 8),
        ]);
        write.push_str("\tfield:__data_loc char[] __buf_val;\toffset:40;\tsize:4;\tsigned:0;\n");
        let print = r#""(%s)", __print_dynamic_array(__buf_val, 1)"#;
        let mut data = words(&[1, 1, 0x10, 3]);
        data.extend(((3u32 << 16) | 44).to_le_bytes());
        data.extend(b"hi\n");
        assert_eq!(
            line("syscalls", "sys_enter_write", &write, print, &data, (7, 3)).unwrap(),
            "sys_write(fd: 1, buf: 0x10 (68:69:0a) \"hi.\", count: 3)"
        );
    }
}
