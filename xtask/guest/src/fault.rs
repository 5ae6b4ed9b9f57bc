//! `kho-guest kill-at`: kills a command at the n-th step that changes anything.
//!
//! The command runs under ptrace until it is about to make the n-th system call that changes something (writes,
//! renames, makes, removes, locks, maps much memory, loads a kernel …). There it is killed with SIGKILL before the call
//! is made. The command contains no code for this.

use std::collections::HashMap;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Exit status if the command ended before that step.
const ENDED: u8 = 3;

/// Of many calls of one kind in a row, only these count as steps.
const OF_A_ROW: [u32; 3] = [1, 2, 40];

/// Size from which a mapping counts as a step.
const LARGE: u64 = 2 << 20;

/// Arguments.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which step, from 1.
    step: u32,
    /// Run this by the shell while the command stands there, before it is killed.
    #[arg(long)]
    then: Option<String>,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command until that step, or until it is about to start another kernel. Prints where the command was killed.
/// An exit status of 3 means that it had fewer steps.
pub fn kill_at(arguments: &Arguments) -> Result<ExitCode> {
    // The shell stops itself, so that it can be seized before it executes the command.
    let child = Command::new("/bin/sh")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .args(&arguments.command)
        .stdin(Stdio::null())
        .spawn()
        .context("starting the command")?;
    let root = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
    waitpid(root, Some(WaitPidFlag::WUNTRACED)).context("waiting for the shell")?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(root, options).context("seizing the command")?;
    kill(root, Signal::SIGCONT).context("starting the command")?;

    let mut begun = false;
    let mut inside: HashMap<Pid, bool> = HashMap::new();
    let mut steps = Steps::default();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).context("waiting for the command")?;
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                if pid == root {
                    println!("ended after {} steps: {status:?}", steps.count);
                    return Ok(ExitCode::from(ENDED));
                }
                continue;
            }
            WaitStatus::PtraceSyscall(pid) => {
                let entering = !inside.get(&pid).copied().unwrap_or(false);
                inside.insert(pid, entering);
                if begun && entering {
                    let registers = ptrace::getregs(pid).context("reading registers")?;
                    // The number of steps differs from run to run, so a command is always killed before it reboots.
                    // `struct open_how` begins with the flags.
                    let word = |at: u64| ptrace::read(pid, at as ptrace::AddressType).ok();
                    if let Some(name) = steps.take(&registers, word)
                        && (steps.count == arguments.step || name == "reboot")
                    {
                        if let Some(then) = &arguments.then {
                            let status = Command::new("/bin/sh").args(["-euc", then]).status();
                            println!("{then}: {status:?}");
                        }
                        kill(root, Signal::SIGKILL).context("killing the command")?;
                        // The kernel reports the end of the process only after the ends of its other threads were read.
                        loop {
                            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                                Ok(
                                    WaitStatus::Signaled(dead, ..) | WaitStatus::Exited(dead, _),
                                ) if dead == root => {
                                    break;
                                }
                                Ok(_) => {}
                                Err(_) => break,
                            }
                        }
                        println!("killed before step {}, {name}", steps.count);
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == nix::libc::PTRACE_EVENT_EXEC {
                    begun = true;
                    inside.insert(pid, true);
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP | Signal::SIGSTOP | Signal::SIGCONT) => {
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            other => bail!("the command: {other:?}"),
        };
        // This fails for a thread that was just killed with its process.
        let _ = ptrace::syscall(pid, signal);
    }
}

/// An ioctl that only reads: include/uapi/linux/fs.h, 6.1.
const FS_IOC_GETFLAGS: u64 = 0x8008_6601;

/// Counts the steps.
#[derive(Default)]
struct Steps {
    count: u32,
    last: Option<(u64, u64)>,
    row: u32,
}

impl Steps {
    /// Name of the call, if it counts as a step. Numbers: arch/x86/entry/syscalls/syscall_64.tbl. `word` reads the
    /// command's memory.
    fn take(
        &mut self,
        registers: &nix::libc::user_regs_struct,
        word: impl Fn(u64) -> Option<i64>,
    ) -> Option<&'static str> {
        let (number, first, second, third) = (
            registers.orig_rax,
            registers.rdi,
            registers.rsi,
            registers.rdx,
        );
        // O_WRONLY, O_RDWR, O_CREAT and O_TRUNC.
        let writes = |flags: u64| flags & 0o1103 != 0;
        let name = match number {
            1 => "write",
            2 if writes(second) => "open",
            9 if second >= LARGE => "mmap",
            10 if second >= LARGE => "mprotect",
            11 if second >= LARGE => "munmap",
            16 if second != FS_IOC_GETFLAGS => "ioctl",
            18 => "pwrite64",
            20 => "writev",
            28 if second >= LARGE => "madvise",
            40 => "sendfile",
            73 => "flock",
            74 => "fsync",
            75 => "fdatasync",
            76 | 77 => "truncate",
            82 | 264 | 316 => "rename",
            83 | 258 => "mkdir",
            84 => "rmdir",
            86 | 265 => "link",
            87 | 263 => "unlink",
            88 | 266 => "symlink",
            90 | 91 | 268 | 452 => "chmod",
            92 | 93 | 94 | 260 => "chown",
            133 | 259 => "mknod",
            149 => "mlock",
            169 => "reboot",
            188..=190 => "setxattr",
            231 => "exit_group",
            246 => "kexec_load",
            257 if writes(third) => "openat",
            285 => "fallocate",
            280 => "utimensat",
            320 => "kexec_file_load",
            326 => "copy_file_range",
            437 if word(third).is_none_or(|flags| writes(flags.cast_unsigned())) => "openat2",
            _ => return None,
        };
        let kind = (
            number,
            if matches!(number, 1 | 18 | 20) {
                first
            } else {
                0
            },
        );
        self.row = if self.last == Some(kind) {
            self.row + 1
        } else {
            1
        };
        self.last = Some(kind);
        if !OF_A_ROW.contains(&self.row) {
            return None;
        }
        self.count += 1;
        Some(name)
    }
}
