//! What kernels say of pages and events.

use kho_trace::format::{EventFormat, Field, Place};
use kho_trace::ring::PageLayout;

#[test]
fn the_page_header_of_a_64_bit_kernel() {
    let text = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
    assert_eq!(PageLayout::parse(text), Ok(PageLayout::default()));
    assert!(PageLayout::parse("").is_err());
}
