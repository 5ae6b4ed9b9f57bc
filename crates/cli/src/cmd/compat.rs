//! `kho compat`: checks whether the next side understands what the loader hands over.

use crate::args;
use crate::exit::{Fail, Status};
use crate::handover::compat;
use crate::output::Output;
use kho_format::catalogue::Catalogue;
use serde_json::json;

/// Runs `kho compat`.
///
/// # Errors
///
/// [`Status::Ignored`] if the next side would ignore a part of the handover.
pub fn run(args: &args::CompatArgs, out: Output) -> Result<(), Fail> {
    let (Some(old), Some(new)) = (&args.old, &args.new) else {
        print(&Catalogue::this(), out);
        return Ok(());
    };
    let ignored = compat::open(old)?.ignored_by(&compat::open(new)?);
    out.result(
        &json!({ "compatible": ignored.is_empty(), "ignored": ignored }),
        || {
            if ignored.is_empty() {
                println!(
                    "everything that {} may write is read by {}",
                    old.display(),
                    new.display()
                );
            }
            for item in &ignored {
                println!("{item}");
            }
        },
    );
    if ignored.is_empty() {
        return Ok(());
    }
    Err(Fail::new(
        Status::Ignored,
        format!("{} would not understand {}", new.display(), old.display()),
    )
    .fix("restore or unkeep what it would ignore before the hop, or boot a newer next side"))
}

fn print(this: &Catalogue, out: Output) {
    let join = |names: &std::collections::BTreeSet<String>| {
        names.iter().cloned().collect::<Vec<_>>().join(" ")
    };
    out.result(this, || {
        println!("build     {}", this.build);
        println!("machines  {}", join(&this.machines));
        println!("carriers  {}", join(&this.carriers));
        println!("pages     {} bytes", this.page_size);
        println!("reads     {}", join(&this.reads));
        println!("writes    {}", join(&this.writes));
    });
}
