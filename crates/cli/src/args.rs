//! The command line: the arguments of every verb, and their help.

use super::carrier::Wanted;
use super::enter::Enter;
use super::on_failure::OnFailure;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Carry memory and state across kexec, on the kernel that you already run.
#[derive(Debug, Parser)]
#[command(
    name = "kho",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:
  kho keep /srv/cache                 what the next kernel shall find again
  echo secret | kho keep --name token -
  kho plan /boot/vmlinuz-6.12         what a load would do, and what it needs
  kho load /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline
  kho exec                            stop this kernel, start the next one
  kho restore                         in the next kernel: everything back to where it came from

Exit statuses are listed by `kho status --exit-statuses`."
)]
pub struct Cli {
    /// Verb and its arguments.
    #[command(subcommand)]
    pub command: Command,

    /// Print one JSON document instead of text (errors too, on standard error).
    #[arg(long, global = true)]
    pub json: bool,

    /// No progress bars and no remarks: only results, warnings and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Directory of kho's runtime state.
    #[arg(
        long,
        global = true,
        hide = true,
        env = "KHO_STATE_DIR",
        default_value = "/run/kho"
    )]
    pub state_dir: PathBuf,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check whether this machine can hand over, one line per finding.
    Doctor(Doctor),
    /// Add to, show, or take from what is kept.
    Keep(Keep),
    /// Show what a load would do, without doing it.
    Plan(Plan),
    /// Read the kept content and load the next kernel. Nothing happens to the running system yet.
    Load(Load),
    /// Start the loaded kernel, now, without stopping services.
    Exec(Exec),
    /// Put what arrived back to where it came from.
    Restore(Restore),
    /// Show what arrived, what is kept and what is loaded, and check every reservation.
    #[command(after_help = "Examples:
  kho status
  kho status --json | jq .hop")]
    Status {
        /// List the exit statuses of all verbs and their meaning.
        #[arg(long)]
        exit_statuses: bool,
    },
    /// Write one blob that arrived to standard output.
    #[command(after_help = "Examples:
  kho get token
  kho get srv-cache | tar -tv        a kept directory is a tar stream

The content is checked against its recorded hash; a mismatch is reported after the bytes were
written, by the exit status.")]
    Get {
        /// The blob's name, as `kho status` shows it.
        name: OsString,
    },
    /// At shutdown: take the content for the kernel that `load --arm` took, and load both.
    Capture(Capture),
    /// As kexec(8): the same options and exit statuses, with a handover.
    #[command(
        disable_help_flag = true,
        after_help = KEXEC_HELP
    )]
    Kexec {
        /// Options of kexec(8).
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "OPTION|KERNEL"
        )]
        args: Vec<OsString>,
    },
    /// Load and exec in one step: at once, without stopping services (`load --arm` and `systemctl kexec` stop them).
    Reboot(Reboot),
    /// Forget the loaded kernel.
    #[command(after_help = "Example:
  kho unload

Refuses when the loaded image is not kho's, unless --force.")]
    Unload {
        /// Unload also an image that another program loaded.
        #[arg(long)]
        force: bool,
    },
    /// Let drivers write down what they hand over, and freeze it (needs kho.ko).
    #[command(after_help = "Examples:
  kho activate
  kho load ... && kho exec

kho load does this by itself; --no-activate makes it refuse instead.")]
    Activate,
    /// Leave the active phase and forget the loaded or armed kernel: drivers go on as before.
    #[command(after_help = "Example:
  kho abort")]
    Abort,
    /// Give memory that arrived and that nobody claimed back to the system, zeroed (needs kho.ko).
    #[command(after_help = "Examples:
  kho release token            a blob: it is not kept any more
  kho release /ring            what a driver that is not here any more kept
  kho release all

What a driver of this kernel has is not released with the rest: the command refuses, and names it. An instance of khofs
is released by its name (/khofs/NAME) when it is not mounted.

kho restore does this by itself for what it has put back.")]
    Release {
        /// The name of a blob, the path of a node (`kho status` lists both), or `all`.
        what: String,
    },
    /// Show what the previous kernel traced.
    Trace(Trace),
    /// Show the previous kernel's messages.
    Log(Log),
    /// Print the state tree that arrived.
    Dump(Dump),
    /// Say everything that is wrong with a state tree.
    Validate(Validate),
    /// Show what differs between two state trees.
    Diff(Diff),
    /// Ask whether one build of kho would understand what another writes.
    Compat(CompatArgs),
    /// Let an initrd carry content, and boot with the command line of a kernel that kho started.
    Initrd(Initrd),
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho doctor
  kho doctor --verbose
  kho doctor --json | jq '.findings[] | select(.severity == \"block\")'

Exits 0 when nothing blocks a handover, otherwise with the status that `kho load` would have.")]
pub struct Doctor {
    /// Explain each finding below its line.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Arguments of `initrd`.
#[derive(Debug, Args)]
#[command(after_help = "Example, in a hook of initramfs-tools:
  kho initrd \"$DESTDIR\"

Writes two programs into the folder that an initrd is made of.

/.kho/arrive: a kernel that kho started has rdinit=/.kho/arrive on its command line. A kernel that is loaded without kho
with a copy of that line needs the program, which starts the init that would have been started without it.

/.kho/carry: a locked-down kernel hands over in the initrd of the next kernel. This program moves the content to
/run/kho/carried. The initrd has to call it after /run is mounted and before the switch to the real root file system.

The Debian package brings hooks for initramfs-tools and dracut that do both.")]
pub struct Initrd {
    /// The folder that becomes the initrd's root.
    pub folder: PathBuf,
}

/// Arguments of `trace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho keep --trace                    before the handover; the trace goes along from then on
  kho trace                           lines as in the old kernel's /sys/kernel/tracing/trace
  kho trace --since -2 --cpu 3        the last two seconds of one CPU
  kho trace --output trace.dat        for trace-cmd report and KernelShark
  kho trace --json | jq '.kernels[].events[] | select(.event == \"sched_switch\")'
  kho trace --live                    the running kernel's, consuming nothing

What cannot be trusted is left out and named; the exit status is then 63.")]
pub struct Trace {
    /// Only this CPU; may be repeated.
    #[arg(long, value_name = "N")]
    pub cpu: Vec<u32>,
    /// Not before this time of the trace's clock, in seconds; with a minus sign, so long before the newest event (of each
    /// clock, where instances have different ones).
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Only this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// All kernels whose trace was carried on, oldest first.
    #[arg(long, conflicts_with_all = ["hop", "output", "live"])]
    pub follow_hops: bool,
    /// The kernel that ended with this hop, instead of the newest.
    #[arg(long, value_name = "N", conflicts_with = "live")]
    pub hop: Option<u64>,
    /// The running kernel's trace, as a load would take it now.
    #[arg(long)]
    pub live: bool,
    /// Write a trace.dat (version 6) instead; whole pages, so --since has no say.
    #[arg(long, value_name = "FILE", conflicts_with = "since")]
    pub output: Option<PathBuf>,
}

/// Arguments of `log`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho log | tail
  kho log --json | jq -r '.kernels[].messages[] | select(.level <= 3).text'")]
pub struct Log {
    /// All kernels whose log was carried on, oldest first.
    #[arg(long, conflicts_with = "hop")]
    pub follow_hops: bool,
    /// The kernel that ended with this hop, instead of the newest.
    #[arg(long, value_name = "N")]
    pub hop: Option<u64>,
}

/// Arguments of `dump`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho dump
  kho dump --json
  kho dump --file state.dtb
  kho dump --dts | dtc -I dts -O dtb > copy.dtb
  kho dump --raw > state.dtb
  kho dump --mainline                 what a kernel with its own KHO found (in) and leaves (out)")]
pub struct Dump {
    /// Dump this file instead of what arrived.
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub file: Option<PathBuf>,
    /// Write the blob itself to standard output.
    #[arg(long)]
    pub raw: bool,
    /// Write source for dtc. Integers are bytes there, because they are native endian.
    #[arg(long, conflicts_with = "raw")]
    pub dts: bool,
    /// Decode the state of a kernel that has Kexec HandOver built in (kho-v1 to kho-v4).
    #[arg(long, conflicts_with_all = ["file", "raw", "dts"])]
    pub mainline: bool,
    /// Directory in which that kernel shows it.
    #[arg(
        long,
        value_name = "DIR",
        requires = "mainline",
        default_value = "/sys/kernel/debug/kho"
    )]
    pub debugfs: PathBuf,
}

/// Arguments of `validate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho validate state.dtb
  kho validate --in                   what arrived, held against this machine's memory too
  kho validate --out                  what the module's producers hand over, while active
  kho validate --json state.dtb | jq '.problems[]'

Prints every problem with the path of its node, all at once. Exits 0 when there is none, 61 when the
tree is wrong, 62 when its version is unknown, 67 when only the machine disagrees.")]
#[group(required = true, multiple = false)]
pub struct Validate {
    /// The file to look at.
    pub file: Option<PathBuf>,
    /// The tree that arrived.
    #[arg(long = "in")]
    pub incoming: bool,
    /// The tree that is about to be handed over (needs the module).
    #[arg(long)]
    pub out: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho diff before.dtb after.dtb
  kho diff before.dtb --in            against what arrived

Exits 0 when the trees say the same, 70 when they differ. The order of nodes and properties does not count.")]
pub struct Diff {
    /// The first tree.
    pub first: PathBuf,
    /// The second tree.
    #[arg(required_unless_present = "incoming", conflicts_with = "incoming")]
    pub second: Option<PathBuf>,
    /// Compare with what arrived.
    #[arg(long = "in")]
    pub incoming: bool,
}

/// Arguments of `compat`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho compat --this --json > this.json
  kho compat this.json next.json      would the kho of next.json understand this one?

Exits 0 when everything that OLD may write is read by NEW, 71 otherwise.")]
pub struct CompatArgs {
    /// Catalogue of the side that hands over.
    #[arg(
        required_unless_present = "this",
        conflicts_with = "this",
        requires = "new"
    )]
    pub old: Option<PathBuf>,
    /// Catalogue of the side that takes over.
    pub new: Option<PathBuf>,
    /// Print the catalogue of this build.
    #[arg(long)]
    pub this: bool,
}

/// Facts about the next side.
#[derive(Debug, Clone, Default, Args)]
pub struct Compat {
    /// The next side's catalogue (kho compat --this --json there); its initrd may carry one too.
    #[arg(long, value_name = "FILE")]
    pub next_catalogue: Option<PathBuf>,
    /// Hand over although the next side would ignore it.
    #[arg(long)]
    pub ignore_compat: bool,
}

/// Arguments of `keep`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho keep /srv/cache /var/lib/redis   directories and files; content is read at load time
  kho keep --name token - < secret     a blob from standard input, taken at once
  kho keep --trace --trace-size 64M    the trace buffers and the kernel log, newest first
  kho keep --list
  kho keep --remove srv-cache          by name or by path
  kho keep --from-config               what /etc/kho/keep.d/*.conf say, in place of what they said before

The list travels: what was kept stays kept over every further hop, until it is removed.")]
pub struct Keep {
    /// Files, directories or symlinks; `-` with --name takes standard input.
    #[arg(required_unless_present_any = ["list", "remove", "from_config", "trace", "no_trace"], value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The name of the blob (default for a path: its escaped form, as systemd-escape --path).
    #[arg(long, value_name = "NAME")]
    pub name: Option<OsString>,
    /// Leave out sockets, devices and pipes found in a kept directory instead of refusing it.
    #[arg(long)]
    pub skip_special: bool,
    /// Do not descend into other file systems mounted below a kept directory.
    #[arg(long)]
    pub one_file_system: bool,
    /// Keep the trace buffers and the log of the kernel that is running when the content is taken.
    #[arg(long)]
    pub trace: bool,
    /// At most so much of the trace buffers, the newest (default 16M).
    #[arg(long, value_name = "SIZE", requires = "trace")]
    pub trace_size: Option<String>,
    /// The traces of so many kernels (default 1).
    #[arg(long, value_name = "N", requires = "trace", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub trace_hops: Option<u32>,
    /// Do not keep the trace any more.
    #[arg(long, conflicts_with = "trace")]
    pub no_trace: bool,
    /// Show the list.
    #[arg(long, conflicts_with_all = ["paths", "name", "remove", "trace", "no_trace"])]
    pub list: bool,
    /// Make the list agree with keep.d/*.conf, see keep.d(5); entries added by hand stay.
    #[arg(long, conflicts_with_all = ["paths", "name", "remove", "list", "skip_special", "one_file_system", "trace", "no_trace"])]
    pub from_config: bool,
    /// Take these off the list.
    #[arg(long, num_args = 1.., value_name = "NAME|PATH", conflicts_with_all = ["paths", "name"])]
    pub remove: Vec<OsString>,
}

/// The kernel, as `plan`, `load` and `reboot` take it.
#[derive(Debug, Clone, Default, Args)]
pub struct Choice {
    /// The kernel image: a bzImage, as in /boot/vmlinuz-*, or a unified kernel image [default: the boot loader's default
    /// entry where it has a loader.conf, else the newest kernel in /boot].
    pub kernel: Option<PathBuf>,
    /// The kernel, the initrd and the options of this entry of the boot loader (Boot Loader Specification), by the name of
    /// its file.
    #[arg(long, value_name = "ID", conflicts_with = "kernel")]
    pub entry: Option<OsString>,
}

/// Initrd, command line and limits of the next kernel, as `plan`, `load` and `reboot` take them.
#[derive(Debug, Clone, Args)]
pub struct Next {
    /// The kernel image.
    #[arg(skip)]
    pub kernel: PathBuf,
    /// The profile of a unified kernel image, numbered from 0 [default: the first].
    #[arg(long, value_name = "N")]
    pub profile: Option<usize>,
    /// Its initial RAM file system; of several, each is unpacked over those before it [default: the one in a unified kernel
    /// image, or beside the kernel, as initrd.img-6.12 beside vmlinuz-6.12].
    #[arg(long, value_name = "FILE")]
    pub initrd: Vec<PathBuf>,
    /// Boot without an initrd, also where there is one beside the kernel.
    #[arg(long, conflicts_with = "initrd")]
    pub no_initrd: bool,
    /// Start from the running kernel's command line. The default when no other line is given, nor is in a unified kernel
    /// image or an entry of the boot loader.
    #[arg(long)]
    pub reuse_cmdline: bool,
    /// The whole command line (as given, before --append).
    #[arg(
        long,
        value_name = "STRING",
        conflicts_with = "reuse_cmdline",
        allow_hyphen_values = true
    )]
    pub command_line: Option<OsString>,
    /// Added at the end of the command line; alone, it is all of it, unless there is one in a unified kernel image or an
    /// entry of the boot loader.
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub append: Option<OsString>,
    /// Size of the scratch region if none was recorded by an earlier hop (for example 256M).
    #[arg(long, value_name = "SIZE")]
    pub scratch: Option<String>,
    /// Carrier of the content: memory that the next kernel leaves alone, or files in its initrd, for a kernel that is locked
    /// down or has no kexec_load (then drivers and khofs hand nothing over).
    #[arg(long, value_enum, value_name = "CARRIER", default_value = "auto")]
    pub carrier: Wanted,
    /// At most this many early reservations (never more than is known to be safe for the firmware).
    #[arg(long, value_name = "N")]
    pub max_ranges: Option<usize>,
    /// Place at which the next kernel is entered: unpacked by the load, it starts sooner.
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    pub enter: Enter,
    /// Do not enter the active phase: refuse when drivers have something to hand over.
    #[arg(long)]
    pub no_activate: bool,
    /// Leave drivers and khofs at work, and let the module hand over what they keep when the kernel starts.
    #[arg(skip)]
    pub late: bool,
    /// Keep drivers' memory in place although the next kernel has no kho.ko to give it to them.
    #[arg(long)]
    pub no_module_check: bool,
    /// Load although memory is fragmented and the kernel will need more than a minute for it: nothing interrupts that.
    #[arg(long)]
    pub slow_ok: bool,
    /// Begin a new chain: what arrived in this boot is dropped, with its scratch region. The way out of
    /// a boot whose state tree arrived damaged.
    #[arg(long)]
    pub forget_arrived: bool,
    /// Hand over everything but the running kernel's trace, which could not be taken.
    #[arg(skip)]
    pub without_trace: bool,
    /// Facts about the next side.
    #[command(flatten)]
    pub compat: Compat,
}

impl Next {
    /// Returns the arguments that name only a kernel.
    pub fn of_kernel(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            profile: None,
            initrd: Vec::new(),
            no_initrd: false,
            reuse_cmdline: false,
            command_line: None,
            append: None,
            scratch: None,
            max_ranges: None,
            carrier: Wanted::default(),
            enter: Enter::default(),
            no_activate: false,
            late: false,
            no_module_check: false,
            slow_ok: false,
            forget_arrived: false,
            without_trace: false,
            compat: Compat::default(),
        }
    }
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho plan /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline
  kho plan /boot/vmlinuz-6.12 --json
  kho plan /boot/vmlinuz-6.12 --svg map.svg

Exits with the status that `kho load` would have.")]
pub struct Plan {
    /// Kernel to boot.
    #[command(flatten)]
    pub choice: Choice,
    /// Initrd, command line and limits.
    #[command(flatten)]
    pub next: Next,
    /// Draw the memory map as an SVG image too.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Arguments of `load`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho load /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline
  kho load /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --command-line 'root=/dev/vda1 ro'
  kho load                                the kernel that the boot loader would start
  kho load --entry debian-6.12            an entry of /boot/loader/entries or of /efi
  kho load /efi/EFI/Linux/debian.efi      a unified kernel image, with its initrd and command line
  kho load --arm /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline && systemctl kexec

A refused load changes nothing: an image that was loaded before stays loaded.")]
pub struct Load {
    /// Kernel to boot.
    #[command(flatten)]
    pub choice: Choice,
    /// Initrd, command line and limits.
    #[command(flatten)]
    pub next: Next,
    /// Take the kernel now and the content when the system stops (kho-capture.service), for `systemctl kexec`.
    #[arg(long)]
    pub arm: bool,
    /// Freeze nothing: drivers and khofs stay at work, and kho.ko hands over what they keep when the kernel starts.
    #[arg(long, conflicts_with_all = ["arm", "no_activate"])]
    pub late: bool,
    /// With --arm: what to do at shutdown when the content cannot be taken [default: as /etc/default/kho
    /// says, cold without it].
    #[arg(long, value_enum, value_name = "WHAT", requires = "arm")]
    pub on_failure: Option<OnFailure>,
    /// First compare what arrived and is handed on where it is with its recorded hashes: memory that has gone bad is
    /// then found before it travels further. What is copied is hashed by every load, and compared by every restore.
    #[arg(long, conflicts_with = "arm")]
    pub verify: bool,
}

impl clap::ValueEnum for OnFailure {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Plain, Self::Cold, Self::Stop]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let (name, help) = match self {
            Self::Plain => ("plain", "Start the same kernel without a handover"),
            Self::Cold => ("cold", "Reboot through the firmware"),
            Self::Stop => (
                "stop",
                "Do not go down: stay in the emergency shell with file systems mounted",
            ),
        };
        Some(clap::builder::PossibleValue::new(name).help(help))
    }
}

/// Arguments of `capture`.
#[derive(Debug, Args)]
#[command(
    after_help = "Started by kho-capture.service when services have stopped and file systems are still there.

The image that was loaded is unloaded first: a failure never leaves an old one armed.

What then happens is said by, in this order: --on-failure, what `kho load --arm` was told, KHO_ON_FAILURE in
the environment, KHO_ON_FAILURE in /etc/default/kho, and without any of these `cold`.

Examples:
  kho load --arm /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline
  kho capture              take the content now and load what was armed"
)]
pub struct Capture {
    /// Only when systemd is on its way to kexec.target; otherwise do nothing.
    #[arg(long)]
    pub if_kexec: bool,
    /// In place of what `load --arm` said.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_failure: Option<OnFailure>,
    /// With --if-kexec: wait so long for another kho that is at work, then kill it.
    #[arg(long, value_name = "SECONDS", default_value_t = Capture::WAIT)]
    pub wait: u64,
    /// Do nothing but what is to be done after a capture that did not finish (killed, timed out).
    #[arg(long)]
    pub settle: bool,
    /// Do nothing but what is to be done when no capture began: systemd calls it at the end of a shutdown
    /// (system-shutdown/kho).
    #[arg(long, conflicts_with_all = ["if_kexec", "settle"])]
    pub at_end: bool,
}

impl Capture {
    /// Seconds that a shutdown waits for another `kho`.
    const WAIT: u64 = 30;

    /// A capture at once, by hand or by `kho kexec -e`.
    pub const NOW: Self = Self {
        if_kexec: false,
        on_failure: None,
        wait: Self::WAIT,
        settle: false,
        at_end: false,
    };
}

/// Text of `kho kexec --help` and of its manual.
pub const KEXEC_HELP: &str = "\
Usage: kho kexec [OPTION]... [KERNEL]
The options and exit statuses of kexec(8), with what is kept handed over.

 -l, --load               Load KERNEL with what is kept. Where kho-capture.service is active the
                          content is taken when the system stops (as kho load --arm does).
 -e, --exec               Start what is loaded.
 -f, --force              Load and start at once, without a shutdown.
 -u, --unload             Unload.
 -S, --status             Exit with 1 if the crash kernel (with -l: the next kernel) is loaded, else 0.
     --initrd=FILE, --ramdisk=FILE
     --append=STRING, --command-line=STRING
     --reuse-cmdline      Start from the running kernel's command line.
 -t, --type=TYPE          bzImage or bzImage64.
 -c, --kexec-syscall      Use kexec_load, which hands over.
 -a, --kexec-syscall-auto The same, or kexec_file_load where the kernel is locked down.
 -s, --kexec-file-syscall Use kexec_file_load. What is kept goes in the initrd, which needs kho's hook: refused
                          without it as long as something is kept.
 -y, --no-sync            Do not write dirty data before the start.
 -d, --debug              Say what is ignored, and why.
 -p, --load-panic         Given to kexec(8) of kexec-tools: the crash kernel is not kho's.
     --print-ckr-size     Size of the crash kernel's region.
 -h, --help   -v, --version

Without effect here: -i -x --mem-min --mem-max --dtb --hotplug and options of the console.

What differs from kexec-tools 2.0.25 and 2.0.29:
  -l          arms, as kho load --arm, while kho-capture.service is active: the image that is loaded at once
              hands nothing over, and the content is taken when the system stops.
  -a, none    kexec_load, and kexec_file_load only where the kernel is locked down.
  -s          fails with 255 while something is kept and the initrd cannot carry it.
  -e          first takes the content for what is armed. Network interfaces are not taken down.
  -p          fails with 255 where kexec-tools is not installed. A command line copied from a kernel that kho
              started gets rdinit=/init at its end: what kho put there is not in the crash kernel's initrd.
  -t          only bzImage and bzImage64; other kernels fail with 255.
  --dtb --hotplug   accepted, as 2.0.29 does; 2.0.25 does not know them.
  --serial --serial-baud   values are not checked.
  --entry --module --args-elf --args-none --noefi --entry-32bit --reuseinitrd and the options of Xen and of
              jumping back fail with 1.
Whatever kho refuses to load fails with 255, and a missing file with 1, as they do. Messages differ.

Examples:
  kho kexec -l /boot/vmlinuz-6.12 --initrd=/boot/initrd.img-6.12 --reuse-cmdline
  kho kexec -e";

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho exec
  kho exec --stale-ok     hand over what was read at load time although it changed since

Services are not stopped and file systems are only synced. Use it from a rescue shell or as the last
step of a shutdown.")]
pub struct Exec {
    /// Go although kept files or the list changed since the load.
    #[arg(long)]
    pub stale_ok: bool,
}

/// Arguments of `reboot`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kho reboot /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline

This is no orderly shutdown: no service is told, nothing is unmounted, only what is dirty is written back. An orderly one:
  kho load --arm /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12 --reuse-cmdline && systemctl kexec")]
pub struct Reboot {
    /// Kernel to boot.
    #[command(flatten)]
    pub choice: Choice,
    /// Initrd, command line and limits.
    #[command(flatten)]
    pub next: Next,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kho restore                      everything, to where it came from
  kho restore --into /mnt          everything, below a directory (blobs as files)
  kho restore --force srv-cache    one entry, over files that exist
  kho restore --first /srv/db &    everything, beginning with what a service waits for

Nothing is half restored: each entry is written beside its place and renamed. Symlinks are never
followed. Blobs without a path are skipped unless --into is given (use `kho get`).")]
pub struct Restore {
    /// Only these entries (names as `kho status` shows them).
    #[arg(value_name = "NAME")]
    pub names: Vec<OsString>,
    /// Put everything below this directory instead.
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Restore this first, then the rest: an entry by its name, or a path, which stands for the entry that holds it and
    /// for those below it. May be repeated.
    #[arg(long, value_name = "PATH", conflicts_with = "names")]
    pub first: Vec<OsString>,
    /// Replace files that exist.
    #[arg(long)]
    pub force: bool,
    /// Restore set-user-ID bits and security.* attributes too.
    #[arg(long)]
    pub privileged: bool,
    /// As kho-restore.service does at boot: every entry as keep.d says, going on after a failure; then
    /// apply keep.d and publish status.json.
    #[arg(long, conflicts_with_all = ["names", "first", "into", "force", "privileged"])]
    pub boot: bool,
}
