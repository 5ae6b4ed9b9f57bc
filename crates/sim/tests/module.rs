//! Random stories of drivers, root and kho.ko over many kernels: the decisions of the module, against a model of every
//! page.

use kho_sim::Template;
use kho_sim::module::{Story, Tally};

/// Number of stories on each machine.
const STORIES: u64 = 8;

/// Stories on one machine, from this seed on. `KHO_STORIES` says how many, for a longer run.
fn tell(template: &Template, first: u64) {
    let stories = std::env::var("KHO_STORIES").ok();
    let stories = stories.map_or(STORIES, |number| number.parse().unwrap());
    let mut all = Tally::default();
    for seed in first..first + stories {
        let place = |step: &str, what| format!("{}, seed {seed}, {step}: {what}", template.name);
        let mut story = Story::new(template.clone(), seed).unwrap();
        for step in 0..500 {
            let number = format!("step {step}");
            story.step().map_err(|what| place(&number, what)).unwrap();
        }
        story.end().map_err(|what| place("the end", what)).unwrap();
        all += story.tally();
    }
    // They do reach what they are meant to test.
    eprintln!("{}, {stories} stories: {all:?}", template.name);
    for (what, count) in [
        ("hops", all.hops / 10),
        ("hops without the module", all.without_module),
        ("parts of a phase that was left", all.aborted),
        ("activations", all.activations / 10),
        ("activations that had to fail", all.failed_activations),
        ("nodes handed over again", all.carried / 4),
        ("pages lent", all.lent / 100),
        ("pages claimed", all.claimed),
        ("nodes claimed", all.nodes),
        ("nodes held", all.holds),
        ("pages released", all.released / 100),
        ("refusals", all.refused / 10),
        ("times loaded again", all.reloads),
        ("pages failed", all.failed),
        ("times without memory", all.no_memory),
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
