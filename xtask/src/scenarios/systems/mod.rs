//! The packages in full Debian systems: installed, used by `systemctl kexec`, upgraded, purged, attacked.

use super::Scenario;
use crate::system::Release;

/// Shell functions that these scripts have.
pub const PRELUDE: &str = include_str!("prelude.sh");

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (release, own, other) in [
        (Release::Bookworm, "6.1", "6.12"),
        (Release::Trixie, "6.12", "7.3"),
    ] {
        let with = |script: &str| script.replace("@OWN@", own).replace("@OTHER@", other);
        all.push(
            Scenario::new(
                format!("debian-{}-services", release.number()),
                "Redis and PostgreSQL in RAM through systemctl kexec into another installed kernel and back",
            )
            .system(release)
            .at(0, &with(include_str!("services-0.sh")))
            .at(1, &with(include_str!("services-1.sh")))
            .at(2, &with(include_str!("services-2.sh"))),
        );
    }
    all
}
