//! The packages in full Debian systems: installed, used by `systemctl kexec`, upgraded, purged, attacked.

use anyhow::{Context, Result, ensure};

use crate::scenario::Scenario;
use kho_lab::run::Outcome;
use kho_lab::system::Release;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (release, own, other) in [
        (Release::Bookworm, "6.1", "6.12"),
        (Release::Trixie, "6.12", "7.3"),
    ] {
        let with = |script: &str| script.replace("@OWN@", own).replace("@OTHER@", other);
        let stages = |scenario: Scenario, scripts: &[&str]| {
            let numbered = scripts.iter().enumerate();
            numbered.fold(scenario.system(release), |scenario, (boot, script)| {
                scenario.at(boot, &with(script))
            })
        };
        let name = |what: &str| format!("debian-{}-{what}", release.number());
        let mut services = [
            include_str!("services-0.sh"),
            include_str!("services-1.sh"),
            include_str!("services-2.sh"),
        ]
        .map(str::to_owned)
        .to_vec();
        // Making initrds takes long and hardly differs between the releases.
        if release == Release::Trixie {
            services[0].insert_str(0, include_str!("services-initrds.sh"));
            services[2].push_str(include_str!("services-copy.sh"));
            services.push(include_str!("services-copied.sh").to_owned());
        }
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        let services = stages(
            Scenario::new(
                name("services"),
                "Redis and PostgreSQL in RAM through systemctl kexec into another installed kernel: copied, and back on khofs; a late mount; on 13, a copied command line",
            ),
            &services,
        )
        .dkms();
        // On 12 the test does less than on 13.
        all.push(match release {
            Release::Bookworm => services.slow(),
            _ => services,
        });
        let failures = [
            include_str!("failures-0.sh"),
            include_str!("failures-1.sh"),
            include_str!("failures-2.sh"),
            include_str!("failures-3.sh"),
            include_str!("failures-4.sh"),
            include_str!("failures-5.sh"),
            include_str!("failures-6.sh"),
        ];
        let filled = |disk: &str, no_disk: &str, force: &str| {
            failures.map(|script| {
                let script = script.replace("@DISK@", disk);
                script
                    .replace("@NO-DISK@", no_disk)
                    .replace("@FORCE@", force)
            })
        };
        let short = filled("", "", "");
        let short: Vec<&str> = short.iter().map(String::as_str).collect();
        let captures = stages(
            Scenario::new(
                name("failures"),
                "captures that fail, time out, or leave something out; plain, cold and stop",
            ),
            &short,
        );
        // Without `--all` the longest test runs on one release only.
        all.push(match release {
            Release::Trixie => captures,
            Release::Bookworm | Release::Forky => captures.slow(),
        });
        let long = filled(
            include_str!("failures-disk.sh"),
            include_str!("failures-no-disk.sh"),
            include_str!("failures-force.sh"),
        );
        let rest = [
            include_str!("failures-7.sh"),
            include_str!("failures-8.sh"),
            include_str!("failures-9.sh"),
            include_str!("failures-10.sh"),
        ];
        let long: Vec<&str> = long.iter().map(String::as_str).chain(rest).collect();
        all.push(
            stages(
                Scenario::new(
                    name("never-begins"),
                    "the same, then captures that never begin, a mount that does not come, and kernels that others loaded",
                ),
                &long,
            )
            .check(said_at_the_end)
            .timeout_s(2700)
            .slow(),
        );
        all.push(stages(
            Scenario::new(
                name("packages"),
                "the package installed, upgraded, removed, purged; kho kexec beside kexec(8)",
            ),
            &[include_str!("packages.sh")],
        ));
        let hostile = stages(
            Scenario::new(
                name("hostile"),
                "a hostile user at work during the restore; a crash kernel; kho in place of kexec(8); an upgrade while armed",
            ),
            &[
                include_str!("hostile-0.sh"),
                include_str!("hostile-1.sh"),
                include_str!("hostile-2.sh"),
            ],
        )
        .append("crashkernel=160M");
        let crash = stages(
            Scenario::new(
                name("crash"),
                "a kernel that was reached by a hop, with another one loaded, crashes: kdump-tools takes its dump",
            ),
            &[
                include_str!("crash-0.sh"),
                include_str!("crash-1.sh"),
                include_str!("crash-2.sh"),
            ],
        )
        .append("crashkernel=256M")
        .crashes(1)
        .timeout_s(1500);
        // systemd 252 has no soft reboot.
        if release == Release::Trixie {
            all.push(stages(
                Scenario::new(
                    name("soft-reboot"),
                    "an armed kernel and the keep list outlast systemctl soft-reboot, and the handover follows; a soft reboot replaces no newer content",
                ),
                &[
                    include_str!("soft-0.sh"),
                    include_str!("soft-1.sh"),
                    include_str!("soft-2.sh"),
                    include_str!("soft-3.sh"),
                ],
            ).slow());
        }
        let initrd = stages(
            Scenario::new(
                name("initrd"),
                "the initrd carries 100 MiB, by a capture at shutdown and by kho load; the hooks of initramfs-tools and of dracut",
            ),
            &[
                include_str!("initrd-0.sh"),
                include_str!("initrd-1.sh"),
                include_str!("initrd-2.sh"),
            ],
        )
        .timeout_s(1500);
        all.push(initrd.slow());
        all.push(hostile.slow());
        all.push(crash.slow());
    }
    all.push(others_in_testing());
    all
}

/// Test in Debian testing of a kernel that systemd loads itself. It is slow because it needs a separate system, and
/// testing changes every day.
fn others_in_testing() -> Scenario {
    let scripts = [
        include_str!("testing-0.sh"),
        include_str!("testing-1.sh"),
        include_str!("testing-2.sh"),
        include_str!("testing-3.sh"),
    ];
    let scenario = Scenario::new(
        "debian-testing-others",
        "a kernel that systemd 262 loads itself, by a boot loader entry, while something is kept: refused, cold, plain; and armed beforehand",
    )
    .system(Release::Forky)
    .slow();
    let numbered = scripts.iter().enumerate();
    numbered.fold(scenario, |scenario, (boot, script)| {
        scenario.at(boot, script)
    })
}

/// Checks the messages that only the console shows, because the journal has ended before them.
fn said_at_the_end(outcome: &Outcome) -> Result<String> {
    let log = std::fs::read_to_string(&outcome.log)
        .with_context(|| format!("reading {}", outcome.log.display()))?;
    for (times, words) in [
        // The kernel's own line, with its time before it.
        (
            2,
            "] kho: NOTHING IS HANDED OVER: the system went down without kho-capture.service",
        ),
        (
            1,
            "kho: NOTHING IS HANDED OVER: the armed kernel was started before kho took its content",
        ),
    ] {
        let found = log.matches(words).count();
        ensure!(
            found == times,
            "the console says {found} times, not {times}: {words}"
        );
    }
    Ok(String::new())
}
