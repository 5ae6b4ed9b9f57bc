//! Exit statuses: one for each reason, so that scripts do not have to parse messages.

/// Declares the statuses in one place: number, name in JSON, meaning.
macro_rules! statuses {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $meaning:literal;)*) => {
        /// Reason why a verb did not do its work.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Status { $(#[doc = $meaning] $variant,)* }

        impl Status {
            /// All statuses, in order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the exit status of the process.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// Returns the name in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns the meaning of the status, in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

statuses! {
    Failed = 1, "failed", "something else went wrong; the message says what";
    Usage = 2, "usage", "the command line was wrong";
    NotPermitted = 10, "not-permitted", "not root, or a needed capability or file is missing";
    KexecDisabled = 11, "kexec-disabled", "kexec_load is switched off or used up (sysctl)";
    LockedDown = 12, "locked-down", "lockdown, an IMA policy or the kernel's configuration forbids kexec_load";
    MemoryEncrypted = 13, "memory-encrypted", "memory encryption: kept ranges would read as noise";
    FirmwareMap = 14, "firmware-map", "the firmware memory map is missing, incomplete or contradictory";
    Unsupported = 15, "unsupported", "this machine or kernel cannot do it";
    StateDir = 16, "state-dir", "the state directory cannot be made or written to";
    BadImage = 20, "bad-image", "the kernel image is truncated, corrupt or of another kind";
    BadInitrd = 21, "bad-initrd", "the initrd is missing or unreadable";
    BadCommandLine = 22, "bad-command-line", "the next kernel's command line is too long or malformed";
    NextKernel = 23, "next-kernel", "the next kernel would not keep what is handed over, or cannot be entered from this one";
    BadName = 30, "bad-name", "not a name for a blob";
    BadSource = 31, "bad-source", "what should be kept cannot be (socket, device, missing, not absolute)";
    SourceChanged = 32, "source-changed", "what should be kept changed while it was read";
    TooLarge = 33, "too-large", "the kept content does not fit; the message says what fits";
    NoSuchEntry = 34, "no-such-entry", "no entry of that name";
    BadConfig = 35, "bad-config", "a line of keep.d is wrong";
    Trace = 36, "trace", "the running kernel's trace cannot be taken";
    Headroom = 40, "headroom", "the next kernel would have too little free memory";
    TooManyRanges = 41, "too-many-ranges", "more early reservations than are safe";
    Scratch = 42, "scratch", "the scratch region is absent, too small or unusable";
    Overlap = 43, "overlap", "ranges overlap or lie outside RAM";
    LoadLimit = 44, "load-limit", "more than kexec_load takes";
    NotEnoughMemory = 45, "not-enough-memory", "this system has too little free memory to load";
    Fragmented = 46, "fragmented", "memory is fragmented: kexec_load would take too long";
    TimeLimit = 47, "time-limit", "the capture would take longer than a shutdown may";
    MemoryFailed = 48, "memory-failed", "kept memory failed (a hardware error), or memory failed in too many places";
    LoadFailed = 50, "load-failed", "the kernel refused kexec_load";
    Stale = 51, "stale", "what is loaded is no longer what would be handed over";
    NotOurs = 52, "not-ours", "the loaded image is not the one kho loaded";
    NothingLoaded = 53, "nothing-loaded", "no kernel is loaded";
    Busy = 54, "busy", "another kho is at work";
    Module = 55, "module", "the kernel module or one of its producers refused";
    NoModule = 56, "no-module", "drivers keep memory in place, and the next kernel has no kho.ko";
    CannotTell = 57, "cannot-tell", "whose image is loaded cannot be found out on this system";
    NothingArrived = 60, "nothing-arrived", "the previous kernel handed nothing over";
    TreeCorrupt = 61, "tree-corrupt", "the state tree that arrived is damaged";
    UnknownVersion = 62, "unknown-version", "the state tree that arrived has an unknown version";
    BlobCorrupt = 63, "blob-corrupt", "a blob's content does not match its recorded hash";
    Exists = 64, "exists", "restoring would replace existing files";
    UnsafePath = 65, "unsafe-path", "a symlink or a hostile name is in the way";
    NoSpace = 66, "no-space", "the target file system is full";
    NotReserved = 67, "not-reserved", "a handed-over range is not reserved in this kernel";
    Different = 70, "different", "the two trees differ";
    Ignored = 71, "would-be-ignored", "the next side would ignore what is handed over";
}
