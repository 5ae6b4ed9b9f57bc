//! Runs of random stories on every machine.

use kho_sim::{Story, Template};

/// Runs `stories` stories of `steps` steps on one machine, from the seed `first` on. Each count of `counts` must reach
/// half the number of stories, which shows that the stories reach the states that they are meant to test. `KHO_STORIES`
/// sets another number of stories, for a longer run.
pub fn tell<S: Story, const COUNTS: usize>(
    template: &Template,
    first: u64,
    (stories, steps): (u64, u64),
    counts: impl Fn(&S::Tally) -> [(&'static str, u64); COUNTS],
) {
    let longer = std::env::var("KHO_STORIES").ok();
    let stories = longer.map_or(stories, |number| number.parse().unwrap());
    let mut all = S::Tally::default();
    for seed in first..first + stories {
        let place = |step: &str, what| format!("{}, seed {seed}, {step}: {what}", template.name);
        let mut story = S::new(template.clone(), seed).unwrap();
        for step in 0..steps {
            let number = format!("step {step}");
            story.step().map_err(|what| place(&number, what)).unwrap();
        }
        story.end().map_err(|what| place("the end", what)).unwrap();
        all += story.tally();
    }
    eprintln!("{}, {stories} stories: {all:?}", template.name);
    for (what, count) in counts(&all) {
        assert!(count >= stories / 2, "{what}: {all:?}");
    }
}

/// Makes a test for each machine, which calls `tell` with the machine and the first seed.
macro_rules! on_every_machine {
    ($tell:ident) => {
        on_every_machine!($tell: bios_2g from 0, bios_6g from 10_000, uefi_4g from 20_000, uefi_8g from 30_000,
            tiny_512m from 40_000);
    };
    ($tell:ident: $($name:ident from $seed:literal),*) => { $(
        #[test]
        fn $name() {
            $tell(&Template::$name(), $seed);
        }
    )* };
}
pub(crate) use on_every_machine;
