//! Random stories of users, root and khofs over many kernels: the decisions of the file system, against a model of
//! every page.

use kho_sim::Template;
use kho_sim::khofs::{Story, Tally};

/// Number of stories on each machine.
const STORIES: u64 = 6;

/// Stories on one machine, from this seed on. `KHO_STORIES` says how many, for a longer run.
fn tell(template: &Template, first: u64) {
    let stories = std::env::var("KHO_STORIES").ok();
    let stories = stories.map_or(STORIES, |number| number.parse().unwrap());
    let mut all = Tally::default();
    for seed in first..first + stories {
        let place = |step: &str, what| format!("{}, seed {seed}, {step}: {what}", template.name);
        let mut story = Story::new(template.clone(), seed).unwrap();
        for step in 0..400 {
            let number = format!("step {step}");
            story.step().map_err(|what| place(&number, what)).unwrap();
        }
        story.end().map_err(|what| place("the end", what)).unwrap();
        all += story.tally();
    }
    // They do reach what they are meant to test.
    eprintln!("{}, {stories} stories: {all:?}", template.name);
    for (what, count) in [
        ("hops", all.hops / 4),
        ("hops without khofs", all.without),
        ("images of a phase that was left", all.aborted * 6),
        ("activations", all.activations / 4),
        ("activations that had to fail", all.failed_activations),
        ("instances mounted after a hop", all.restored / 4),
        ("instances released", all.released),
        ("pages written", all.written / 1000),
        ("pages compared", all.compared / 10_000),
        ("folios", all.folios / 4),
        ("pages lost", all.lost),
        ("refusals", all.refused / 8),
        ("times without memory", all.no_memory),
        ("pages given back", all.given_back / 200),
    ] {
        assert!(count >= stories / 2, "{what}: {all:?}");
    }
}

macro_rules! machines {
    ($($name:ident from $seed:literal),* $(,)?) => { $(
        #[test]
        fn $name() {
            tell(&Template::$name(), $seed);
        }
    )* };
}

machines!(
    bios_2g from 0,
    bios_6g from 10_000,
    uefi_4g from 20_000,
    uefi_8g from 30_000,
    tiny_512m from 40_000,
);
