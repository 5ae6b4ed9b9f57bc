//! The kernel module: producers, memory in place, consumers.

mod hostile;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::scenario::Scenario;
use kho_lab::qemu::Firmware;
use kho_lab::run::Outcome;

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// Each kernel hands to each.
const PAIRS: [&str; 7] = ["6.1", "6.12", "7.3", "6.1", "7.3", "6.12", "6.1"];

/// Shell functions of these tests.
const LIB: &str = include_str!("lib.sh");

fn script(text: &str) -> String {
    format!("{LIB}\n{text}")
}

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let phases = KERNELS.map(phase);
    let rest = [
        ring_20(),
        scattered(),
        faults(),
        forged(),
        hostile_trees(),
        crash(),
        given_away(),
        left(),
        versions(),
        kill(),
        kill_all(),
        abort_then_exec(),
        kernel_without(),
        somebody_elses_image(),
        event_log("6.1", "6.12"),
        event_log("6.12", "7.3"),
        huge_pages(),
        note(),
    ];
    phases.into_iter().chain(rest).collect()
}

fn phase(kernel: &'static str) -> Scenario {
    Scenario::new(
        format!("module-phase-{kernel}"),
        "active and abort, failing producers, wrong calls, two writers, nobody but root, unloading",
    )
    .kernels(&[kernel])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("phase.sh")))
}

fn scattered() -> Scenario {
    let each = "
        if [ $KHO_HOP -gt 0 ]; then
            # Each page was looked at before the module gave back what was reserved without need.
            arrived=$(dmesg | sed -n 's/.*kho: arrival: \\([0-9]*\\) ranges with .* pages are reserved .*/\\1/p')
            echo \"early ranges that arrived: $arrived\"
            [ $arrived -ge 2 ]
            [ $arrived -le 100 ]
            kho-guest fill
            insmod $modules/kho_test.ko
            [ $(cat /sys/module/kho_test/parameters/verified) = 0 ]
            ring_is 0 $((2 * KHO_HOP))
            echo all >$sys/release || true
            [ $(fact unclaimed) = 0 ]
            rmmod kho_test
        fi
        mem_total | kho-guest report MemTotal
        insmod $modules/kho_test.ko
        ring_add 2
        [ -z \"$KHO_NEXT\" ] || {
            load
            kho status
            dmesg | grep 'kho:'
            kho plan \"$KHO_NEXT_KERNEL\" --initrd \"$KHO_NEXT_INITRD\" --append \"$KHO_NEXT_CMDLINE\" --json >/tmp/plan
            # At most so many early ranges, whatever is scattered.
            entries=$(sed -n 's/.*\"early_ranges\": \\([0-9]*\\),/\\1/p' /tmp/plan)
            echo \"early ranges: $entries\"
            [ $entries -le 100 ]
            kho-guest loaded
        }";
    Scenario::new(
        "module-scattered-2000",
        "2,000 scattered pages, a vmapped area and a ring in place, each kernel to each, memory filled",
    )
    .kernels(&PAIRS)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(each))
    .each(&script(each))
    .check(memory_came_back)
    .timeout_s(900)
}

fn faults() -> Scenario {
    Scenario::new(
        "module-faults",
        "every allocation of the module fails once, on arrival, on claim, and on activation",
    )
    .kernels(&["6.12", "6.1", "7.3"])
    .mem_mib(512)
    .kho_modules(&[])
    .first(&script(include_str!("faults.sh")))
    .each(&script(include_str!("faults.sh")))
    .timeout_s(600)
}

fn forged() -> Scenario {
    let kernels = ["6.1", "6.12", "7.3"].repeat(3);
    Scenario::new(
        "module-forged",
        "kernel's parts of other versions, damaged ones, and one in the firmware's memory, as early boot was told",
    )
    .kernels(&kernels)
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("forged.sh")))
    .each(&script(include_str!("forged.sh")))
    .timeout_s(900)
}

fn hostile_trees() -> Scenario {
    Scenario::new(
        "module-hostile",
        "trees forged in memory: kernel text, memory map, firmware, scratch, twice the same page …; then put right again",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&[])
    .memory_in_file()
    .first(&script(include_str!("hostile.sh")))
    .each(&script(include_str!("hostile.sh")))
    .step("forge", hostile::forge)
    .step("heal", hostile::heal)
    .timeout_s(600)
}

fn crash() -> Scenario {
    Scenario::new(
        "module-crash",
        "panic and power cut while active and with an image loaded: ordinary boots, stated as such",
    )
    .kernels(&["6.12", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("crash.sh")))
    .each(&script(include_str!("crash.sh")))
    .panics(2)
    .step("cut", |host| host.cut_power())
    .timeout_s(480)
}

fn given_away() -> Scenario {
    Scenario::new(
        "module-given-away",
        "what drivers left is never left out silently: a module that gave it away and is gone, a part that is not believed",
    )
    .kernels(&["6.12", "6.1", "7.3", "6.12", "6.1", "7.3"])
    .mem_mib(512)
    .kho_modules(&[])
    .first(&script(include_str!("given-away.sh")))
    .each(&script(include_str!("given-away.sh")))
    .timeout_s(480)
}

fn left() -> Scenario {
    Scenario::new(
        "module-left",
        "what nobody took goes on beside a driver of its name, what was taken in part does not; a module that cannot find out",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&[])
    .first(&script(include_str!("left.sh")))
    .each(&script(include_str!("left.sh")))
}

fn versions() -> Scenario {
    Scenario::new(
        "module-versions",
        "command and module of this contract and of the next: what one left stays reserved and whole under the other",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&[])
    .next_command()
    .first(&script(include_str!("versions.sh")))
    .each(&script(include_str!("versions.sh")))
}

fn kill() -> Scenario {
    let about =
        "activate, abort, load, exec and release are killed on the way, with drivers taking part";
    kills("module-kill", about, "").kernels(&["6.1", "6.12"])
}

fn kill_all() -> Scenario {
    let about = "the same, a load at every single step too";
    kills("module-kill-all", about, "EACH=1")
        .kernels(&["6.12", "7.3"])
        .timeout_s(5400)
        .slow()
}

fn kills(name: &str, about: &str, more: &str) -> Scenario {
    let text = format!(
        "{more}\n{}\n{LIB}\n{}",
        include_str!("../fault/lib.sh"),
        include_str!("kill.sh")
    );
    Scenario::new(name, about)
        .kho_modules(&["kho", "kho_ring"])
        .first(&text)
        .each(&text)
        .timeout_s(1200)
        .check(super::fault::kills)
}

fn abort_then_exec() -> Scenario {
    Scenario::new(
        "module-abort-exec",
        "abort with an image loaded, then a bare kexec: nothing is handed over, nothing is corrupted",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(
        "ring_add 2
         load
         echo 0 >$sys/active
         kho status | grep 'loaded .*STALE, the active phase is not the one that was loaded'
         refused 'the active phase is not the one that was loaded' kho exec
         refused 'the active phase is not the one that was loaded' kho exec --stale-ok
         echo 1 >$sys/active
         refused 'the active phase is not the one that was loaded' kho exec
         # A load that is refused leaves the phase as it was, and one that froze the drivers thaws them.
         kho abort
         thawed
         refused 'scratch' load --scratch 1M
         thawed
         refused 'the active phase is not entered' load --no-activate
         thawed
         load
         frozen
         kho unload
         thawed
         kho activate
         load --no-activate
         kho unload
         frozen
         kho abort
         load
         echo 0 >$sys/active
         # The pages are recycled before the image is started.
         ring_add 2
         kho-guest fill
         kho-guest loaded --bare",
    ))
    .at(1, &script(
        "case $(fact kernel-part) in 'it is no tree'*) ;; *) cat $sys/status; exit 1 ;; esac
         [ ! -e $sys/in/dt ]
         [ $(cat $ring/origin) = new ]
         kho status | grep 'is ignored and stays reserved'
         kho-guest fill
         kho release all
         [ $(fact unclaimed) = 0 ]
         kho-guest fill
         ring_add 4",
    ))
    .each(&script("kho-guest fill; ring_is 0 4; kho status"))
}

fn kernel_without() -> Scenario {
    Scenario::new(
        "module-kernel-without",
        "kernels without the module and with another kernel's: refused by default, carried on when told to",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .without_module(1)
    .first(&script(
        "ring_add 6
         insmod $modules/kho_test.ko pages=1001 nodes=1000
         echo kept | kho keep --name blob -
         refused 'has no kho.ko' load
         thawed
         load --no-module-check
         kho-guest loaded",
    ))
    .at(1, &script(
        "[ ! -e $sys ]
         kho status
         kho status | grep -q 'module    not loaded; what drivers left stays reserved'
         for module in /lib/modules/*/updates/kho.ko; do fails insmod $module; done
         kho-guest ranges --at-least 2
         kho-guest fill
         [ $(kho get blob) = kept ]
         refused 'kho.ko is not loaded' kho release blob",
    ))
    .each(&script(
        "kho-guest fill
         ring_is 0 6
         kho status
         [ $(kho get blob) = kept ]
         # A list of what nobody claimed that is far longer than a page, and all of it at once.
         if [ $KHO_HOP = 2 ]; then
             grep -c a-node-with $sys/release
             [ $(grep -c '^/test/a-node-with-a-long-name-[0-9]* 4096$' $sys/release) = 1000 ]
             [ $(cat $sys/release | wc -c) -gt 20000 ]
             [ $(kho status | grep -c 'unclaimed /test/a-node') = 1000 ]
             fails sh -c \"printf /no-such-node >$sys/release\"
             kho release /no-such-node || [ $? = 34 ]
             refused 'there is blob, /test, /test/.* and 99[0-9] more, see kho status' kho release /no-such-node
             refused 'there is blob, /test, ' kho release no-such-blob
             kho release /test/a-node-with-a-long-name-7
             refused 'nothing of /test/a-node-with-a-long-name-7 is left' kho release /test/a-node-with-a-long-name-7
             fails sh -c \"printf /test/a-node-with-a-long-name-7 >$sys/release\"
             [ $(grep -c a-node-with $sys/release) = 999 ]
             kho release /test
         fi
         # With the driver away for a hop its node goes on untouched.
         [ $KHO_HOP = 2 ] || exit 0
         before=$(mem_total)
         kho release blob
         [ $(mem_total) -gt $before ]
         refused 'given back' kho get blob
         echo kept | kho keep --name blob -",
    ))
}

fn somebody_elses_image() -> Scenario {
    Scenario::new(
        "module-plain-kexec",
        "an image that kho did not load, started while active: an ordinary boot, stated as such",
    )
    .kernels(&["6.12", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(
        "ring_add 2
         kho load --arm \"$KHO_NEXT_KERNEL\" --initrd \"$KHO_NEXT_INITRD\" --append \"$KHO_NEXT_CMDLINE\"
         kho activate
         frozen
         # An abort forgets an armed kernel too.
         kho abort
         thawed
         [ $(cat /sys/kernel/kexec_loaded) = 0 ]
         kho status | grep 'loaded    nothing'
         refused 'no kernel is loaded, and drivers or khofs keep something' kho capture
         kho load --arm \"$KHO_NEXT_KERNEL\" --initrd \"$KHO_NEXT_INITRD\" --append \"$KHO_NEXT_CMDLINE\"
         kho activate
         kho-guest loaded --bare",
    ))
    .each(&script(
        "[ \"$(fact arrival)\" = 'none, an ordinary boot' ]
         [ ! -e $sys/in/dt ]
         [ $(cat $ring/origin) = new ]
         kho status | grep -q 'nothing: this was an ordinary boot'
         kho-guest fill
         echo 1 >$sys/active
         frozen
         echo 0 >$sys/active",
    ))
}

fn event_log(first: &'static str, next: &'static str) -> Scenario {
    let each = "
        mount -t securityfs securityfs /sys/kernel/security 2>/dev/null || true
        log=$(dmesg | sed -n 's/.*TPMEventLog=\\(0x[0-9a-f]*\\).*/\\1/p' | head -1)
        [ -n \"$log\" ]
        kho-guest hash --same 'TPM event log' </sys/kernel/security/tpm0/binary_bios_measurements
        kho-guest reserved $log 4096
        if [ $KHO_HOP -gt 0 ]; then
            echo \"slack released: $(fact slack-released)\"
            [ $(fact slack-released) -gt 0 ]
            kho-guest fill
            kho-guest reserved $log 4096
            kho-guest hash --same 'TPM event log' </sys/kernel/security/tpm0/binary_bios_measurements
            insmod $modules/kho_test.ko
            [ $(cat /sys/module/kho_test/parameters/verified) = 0 ]
        else
            insmod $modules/kho_test.ko around=$log
        fi";
    Scenario::new(
        format!("module-event-log-{first}-{next}"),
        "UEFI with a TPM: its log lies between kept pages, and slack is released on both sides of it",
    )
    .kernels(&[first, next])
    .firmware(Firmware::UefiTpm)
    .kho_module()
    .first(&script(each))
    .each(&script(each))
    .timeout_s(480)
}

fn note() -> Scenario {
    Scenario::new(
        "module-note",
        "a driver in Rust: its note survives in place, is frozen while active, and is lost with the driver",
    )
    .kernels(&["6.1", "6.12", "7.3"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_note"])
    .first(&script(
        "text=/sys/kernel/kho_note/text
         [ -z \"$(cat $text)\" ]
         echo first >$text
         echo 1 >$sys/active
         fails sh -c \"echo no >$text\"
         kho validate --out
         echo 0 >$sys/active
         rmmod kho_note
         insmod $modules/kho_note.ko
         [ -z \"$(cat $text)\" ]
         echo \"hop 0\" >$text",
    ))
    .each(&script(
        "text=/sys/kernel/kho_note/text
         kho-guest fill
         [ \"$(cat $text)\" = \"hop $((KHO_HOP - 1))\" ]
         echo \"hop $KHO_HOP\" >$text",
    ))
}

fn huge_pages() -> Scenario {
    // How many of the wanted huge pages there are; the kernel compacts and takes what is free.
    let count = "
        huge() {
            echo 3 >/proc/sys/vm/drop_caches
            echo 1 >/proc/sys/vm/compact_memory
            echo $1 >/proc/sys/vm/nr_hugepages
            cat /proc/sys/vm/nr_hugepages
            echo 0 >/proc/sys/vm/nr_hugepages
        }
        # Nearly all that is free, but some for the system to live on.
        spare() {
            awk '/^MemFree/ {print int(($2 - 98304) / 2048)}' /proc/meminfo
        }";
    Scenario::new(
        "module-huge-pages",
        "huge pages can be had again out of what was kept and released",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.12"])
    .kho_module()
    .first(&script("insmod $modules/kho_test.ko blocks=128"))
    .each(&script(&format!(
        "{count}
         kho-guest fill
         before=$(huge $(spare))
         [ $(fact unclaimed) -ge $((256 << 20)) ]
         kho release all
         after=$(huge $((before + 120)))
         echo \"$before huge pages before, $after after 128 were released\"
         [ $after = $((before + 120)) ]
         insmod $modules/kho_test.ko blocks=128"
    )))
    .timeout_s(480)
}

/// Checks that the ring of the sample driver holds what earlier kernels added, then adds two records.
const RING: &str = "
    if [ $KHO_HOP -gt 0 ]; then
        kho get growing >/tmp/blob
        kho-guest bytes $((KHO_HOP << 20)) --seed 0 | cmp - /tmp/blob
        kho keep --remove growing
        kho release growing
    fi
    kho-guest bytes $(((KHO_HOP + 1) << 20)) --seed 0 >/tmp/blob
    kho keep --name growing - </tmp/blob
    rm /tmp/blob
    records=$((2 * KHO_HOP))
    [ \"$(cat $ring/counter)\" = $records ]
    [ \"$(wc -l <$ring/ring)\" = $records ]
    number=0
    while read -r found text; do
        [ \"$found $text\" = \"$number record of hop $((number / 2))\" ]
        number=$((number + 1))
    done <$ring/ring
    echo \"record of hop $KHO_HOP\" >$ring/add
    echo \"record of hop $KHO_HOP\" >$ring/add
    awk '/^MemTotal/ {print $2}' /proc/meminfo | kho-guest report MemTotal
    cat /sys/kernel/kho/status";

fn ring_20() -> Scenario {
    let kernels = ["6.1", "6.12", "7.3"].repeat(7);
    Scenario::new(
        "module-ring-20",
        "a driver's ring of pages, its counter, and a blob that grows by a MiB, through twenty hops, memory filled after each",
    )
    .kernels(&kernels)
    .mem_mib(640)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(RING))
    .each(&script(&format!(
        "kho-guest fill
         [ \"$(cat $ring/origin)\" = \"inherited from $(fact previous-release)\" ]
         [ $(fact hop) = $KHO_HOP ]
         kho status | grep -q \"hop $KHO_HOP from $(fact previous-release),\"
         # The same at every hop.
         kho-guest same scratch \"$(cat $sys/scratch)\"
         {RING}"
    )))
    .check(memory_came_back)
    .timeout_s(1200)
}

/// The system's memory under each kernel is what it was the first time, but for the pages of the state (chain and
/// trees), which the kernel reads for as long as it runs.
fn memory_came_back(outcome: &Outcome) -> Result<String> {
    const STATE_KIB: u64 = 128;
    let mut first: BTreeMap<&str, u64> = BTreeMap::new();
    let mut worst = 0;
    for (hop, life) in outcome.lives.iter().enumerate() {
        let value = life
            .values
            .get("MemTotal")
            .context("no MemTotal was reported")?;
        let kib: u64 = value.trim().parse()?;
        let before = *first.entry(&life.release).or_insert(kib);
        let lost = before.saturating_sub(kib);
        ensure!(
            lost <= STATE_KIB,
            "{lost} KiB of memory are lost under {} at hop {hop}",
            life.release
        );
        worst = worst.max(lost);
    }
    Ok(format!(
        "MemTotal is at most {worst} KiB below its first value"
    ))
}
