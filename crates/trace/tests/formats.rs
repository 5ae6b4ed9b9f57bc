//! Formats of pages, events and messages, as kernels describe them.

use kho_trace::Names;
use kho_trace::eval::Scope;
use kho_trace::expr::{Expr, parse_print};
use kho_trace::format::{EventFormat, Field, Place};
use kho_trace::kmsg;
use kho_trace::printf::{binary, format, push_safe};
use kho_trace::ring::PageLayout;
use kho_trace::value::Value;

#[test]
fn the_page_header_of_a_64_bit_kernel() {
    let text = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
    assert_eq!(PageLayout::parse(text), Ok(PageLayout::default()));
    assert!(PageLayout::parse("").is_err());
    assert!(PageLayout::parse(&text.replace("offset:16", "offset:99999")).is_err());
    assert!(PageLayout::parse(&text.replace("offset:8;\tsize:8", "offset:8;\tsize:3")).is_err());
}

#[test]
fn fields_and_where_their_bytes_are() {
    let field = |text: &str| Field::parse(text).unwrap();
    let plain = field("\tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;");
    assert_eq!(
        (plain.name.as_str(), plain.kind.as_str(), plain.element),
        ("parent_ip", "unsigned long", None)
    );
    let text = field("\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:1;");
    assert_eq!(text.element, Some(1));
    assert!(text.is_text());
    let words = field("\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;");
    assert_eq!(words.element, Some(8));
    let pointer = field("\tfield:const char * fmt;\toffset:16;\tsize:8;\tsigned:0;");
    assert_eq!(
        (pointer.name.as_str(), pointer.kind.as_str()),
        ("fmt", "const char *")
    );
    let elsewhere = field("\tfield:__data_loc char[] name;\toffset:8;\tsize:4;\tsigned:1;");
    assert_eq!(elsewhere.place, Place::DataLoc);
    // 3 bytes at 12: the length is in the upper half of the word, the offset in the lower.
    let mut record = vec![0; 16];
    record[8..12].copy_from_slice(&((3u32 << 16) | 12).to_le_bytes());
    record[12..15].copy_from_slice(b"abc");
    assert_eq!(elsewhere.bytes(&record), Some(&b"abc"[..]));
    let relative = field("\tfield:__rel_loc char[] name;\toffset:8;\tsize:4;\tsigned:1;");
    record[8..12].copy_from_slice(&(3u32 << 16).to_le_bytes());
    assert_eq!(relative.bytes(&record), Some(&b"abc"[..]));
    record[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(elsewhere.bytes(&record), None);
    for bad in [
        "",
        "field:",
        "field:int x;",
        "field:int x; offset:-1; size:4; signed:0;",
        "field:; offset:0; size:4; signed:0;",
    ] {
        assert_eq!(Field::parse(bad), None, "{bad}");
    }
}

fn show(print: &str, fields: &str, record: &[u8]) -> Option<String> {
    let text = format!("name: e\nID: 7\nformat:\n{fields}\nprint fmt: {print}\n");
    let format = EventFormat::parse("s", &text).unwrap();
    let names = Names::parse(
        "",
        "",
        "0xffff800000000010 : \"a\\tb\\n\"\n",
        "ffffffff81000000 T start\nffffffff81000010 t next\n",
    );
    let scope = Scope {
        format: &format,
        record,
        names: &names,
    };
    scope.line(format.print.as_ref()?)
}

const INTS: &str = "\tfield:int a;\toffset:0;\tsize:4;\tsigned:1;\n\tfield:unsigned long b;\toffset:4;\tsize:8;\tsigned:0;\n\tfield:u8 m[6];\toffset:12;\tsize:6;\tsigned:0;";

fn ints(a: i32, b: u64) -> Vec<u8> {
    let mut record = a.to_le_bytes().to_vec();
    record.extend(b.to_le_bytes());
    record.extend([1, 2, 3, 0xab, 0xcd, 0xef]);
    record
}

#[test]
fn lines_of_a_print_fmt() {
    let record = ints(-5, 0xffff_ffff_8100_0004);
    for (print, wanted) in [
        (
            r#""%d %u %x", REC->a, REC->a, REC->a"#,
            "-5 4294967291 fffffffb",
        ),
        (r#""%pI4", &REC->a"#, "251.255.255.255"),
        (r#""%x %x", ((u16 *)REC->m)[1], *(s16 *)REC->m"#, "ab03 201"),
        (
            r#""%s", __print_dynamic_array(m, 2)"#,
            "{0x201,0xab03,0xefcd}",
        ),
        (
            r#""%5d|%-5d|%05d|%+d", REC->a, REC->a, REC->a, 3"#,
            "   -5|-5   |-0005|+3",
        ),
        (
            r#""%lx %#lx %llu", REC->b, REC->b, (unsigned long long)REC->b"#,
            "ffffffff81000004 0xffffffff81000004 18446744071578845188",
        ),
        (
            r#""%ps %pS %s", (void *)REC->b, (void *)REC->b, "x" "y""#,
            "start start+0x4/0x10 xy",
        ),
        (
            r#""%pM %*ph", REC->m, 2, REC->m"#,
            "01:02:03:ab:cd:ef 01 02",
        ),
        (
            r#""%*pb %*pbl", 20, REC->m, 48, REC->m"#,
            "30201 0,9,16-17,24-25,27,29,31-32,34-35,38-43,45-47",
        ),
        (r#""%s", REC->a < 0 ? "less" : "more""#, "less"),
        (
            r#""%d", ((REC->a + 1) << 2) * 3 % 7 - (1 | 6 & 4 ^ 1)"#,
            "-11",
        ),
        (
            r#""%s", __print_flags(REC->a & 0xff, "|", { 0x01, "A" }, { 0x02, "B" }, { 0x08 | 0x10, "C" })"#,
            "A|B|C|0xe0",
        ),
        (
            r#""%s", __print_symbolic(REC->a, { -5, "FIVE" }, { 1, "ONE" })"#,
            "FIVE",
        ),
        (
            r#""%s", __print_symbolic(REC->b & 3, { 7, "SEVEN" })"#,
            "0x0",
        ),
        (r#""%s", __print_hex(REC->m, 3)"#, "01 02 03"),
        (r#""%s", __print_array(REC->m, 3, 1)"#, "{0x1,0x2,0x3}"),
        (r#""%x %%", REC->m[3]"#, "ab %"),
        (r#""%c%c", 'a', '\n'"#, "a\n"),
        (r#""%d", (int)(u8)REC->a"#, "251"),
        (r#""%d", sizeof(long) + sizeof(struct_is_not_known)"#, "?"),
        (r#""%s", (const char *)0xffff800000000010UL"#, "a\tb\n"),
        (r#""%.2s %.*s", "abcd", 3, "abcd""#, "ab abc"),
        (
            r#""%lld", !REC->a + ~0 + (REC->a && REC->b) + (0 || REC->a)"#,
            "1",
        ),
    ] {
        let found = show(print, INTS, &record);
        assert_eq!(
            found.as_deref(),
            (wanted != "?").then_some(wanted),
            "{print}"
        );
    }
}

#[test]
fn what_is_not_understood_is_none() {
    let record = ints(1, 0);
    for print in [
        "",
        "REC->a",
        r#""%d""#,
        r#""%d", REC->none"#,
        r#""%d", REC->a / 0"#,
        r#""%d", helper(REC->a)"#,
        r#""%d", CONSTANT"#,
        r#""%d", (REC->a"#,
        r#""%y", 1"#,
        r#""%d", REC->m[9]"#,
        r#""unterminated"#,
    ] {
        assert_eq!(show(print, INTS, &record), None, "{print}");
    }
    // Deep nesting is refused without recursion into it.
    for deep in ["(", "!", "-", "~(", "1?", "1+(", "f("] {
        let print = parse_print(&format!("\"%d\", {}", deep.repeat(25_000))).unwrap();
        assert!(matches!(&print.arguments[..], [Expr::Source(_)]), "{deep}");
    }
    assert!(parse_print(&format!("\"%d\", 1{}", "+1".repeat(100_000))).is_none());
    assert!(show("\"\"", INTS, &[]).is_some_and(|line| line.is_empty()));
}

#[test]
fn what_has_no_value_is_shown_as_it_is_written() {
    let record = ints(1, 0x20);
    for (print, wanted) in [
        (
            r#""%d %s", REC->a, helper(REC->b, "x")"#,
            "1 helper(0x20, x)",
        ),
        (
            r#""%p %d", ((struct page *)base) + REC->b, REC->a"#,
            "base+0x20 1",
        ),
        (
            r#""%d %s", REC->a, __print_symbolic(REC->b, { UNKNOWN, "A" }, { 32, "B" })"#,
            "1 B",
        ),
        (
            r#""%d %s", REC->a, __print_flags(REC->b, "|", { UNKNOWN, "A" }, { 0x20, "B" })"#,
            "1 B",
        ),
        (
            r#""%lu %d", (jiffies - REC->b) / 250, REC->a"#,
            "jiffies-0x20/0xfa 1",
        ),
        (
            r#""%d %d", REC->a, ({ int x = REC->a; x; })"#,
            "1 ({ int x = REC->a; x; })",
        ),
        (r#""%u %u", (REC)->a, (OM_uint32) 1ul << 3"#, "1 8"),
    ] {
        assert_eq!(
            show(print, INTS, &record).as_deref(),
            Some(wanted),
            "{print}"
        );
    }
    assert_eq!(show(r#""%d %d", REC->a, 1 / 0"#, INTS, &record), None);
}

#[test]
fn binary_printk() {
    let names = Names::default();
    let mut arguments = 7u32.to_le_bytes().to_vec();
    arguments.extend(b"text\0");
    arguments.extend([0; 3]);
    arguments.extend(0x1234_5678_9abc_u64.to_le_bytes());
    let line = binary("%d %s %llx", &arguments, &names);
    assert_eq!(line.as_deref(), Some("7 text 123456789abc"));
    assert_eq!(binary("%d", &[], &names), None);
    assert_eq!(
        binary("100%% %d", &7u32.to_le_bytes(), &names).as_deref(),
        Some("100% 7")
    );
}

#[test]
fn pointers_whose_text_was_stored() {
    // `vbin_printf` stores text for pointers that it has to follow, and the value of other pointers.
    let names = Names::parse(
        "",
        "",
        "",
        "ffffffff81000000 T start\nffffffff81000100 T end\n",
    );
    let mut arguments = 7u32.to_le_bytes().to_vec();
    arguments.extend(b"10.0.0.1\0");
    arguments.extend([0; 3]);
    arguments.extend(0xffff_ffff_8100_0010_u64.to_le_bytes());
    arguments.extend(b"1b4e28ba-2fa1-11d2-883f-0016d3cca427\0");
    arguments.extend([0; 3]);
    arguments.extend(9u32.to_le_bytes());
    assert_eq!(
        binary("%d %pI4 %pS %20pUl%% %d", &arguments, &names).as_deref(),
        Some("7 10.0.0.1 start+0x10/0x100 1b4e28ba-2fa1-11d2-883f-0016d3cca427% 9")
    );
}

#[test]
fn strings_of_the_kernel_that_end_in_a_quote() {
    let names = Names::parse("", "", "0xffffffff82000000 : \"say \\\"no\\\"\"\n", "");
    assert_eq!(names.printk(0xffff_ffff_8200_0000), Some("say \"no\""));
}

#[test]
fn addresses_of_the_network() {
    let bytes = |bytes: &[u8]| Value::Bytes {
        bytes: bytes.to_vec().into(),
        size: 1,
        signed: false,
    };
    let names = Names::default();
    let one = |template: &str, value| format(template.as_bytes(), &[value], &names).unwrap();
    assert_eq!(one("%pI4.", bytes(&[10, 0, 0, 1])), "10.0.0.1.");
    assert_eq!(
        one(
            "%pI6c",
            bytes(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        ),
        "fe80::1"
    );
    assert_eq!(
        one("%pISpc!", bytes(&[2, 0, 0, 80, 1, 2, 3, 4])),
        "1.2.3.4:80!"
    );
    assert_eq!(
        one("%pU", bytes(&[0x11; 16])),
        "11111111-1111-1111-1111-111111111111"
    );
    let uuid: Vec<u8> = (0..16).collect();
    for (template, shown) in [
        ("%pUb", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ("%pUl", "03020100-0504-0706-0809-0a0b0c0d0e0f"),
        ("%pUL", "03020100-0504-0706-0809-0A0B0C0D0E0F"),
        ("%pi6", "000102030405060708090a0b0c0d0e0f"),
        ("%pi4", "000.001.002.003"),
        ("%pI4h", "3.2.1.0"),
        ("%p4cc", ".... little-endian (0x03020100)"),
    ] {
        assert_eq!(one(template, bytes(&uuid)), shown, "{template}");
    }
    assert_eq!(
        one("%p4cc", bytes(b"NV12")),
        "NV12 little-endian (0x3231564e)"
    );
}

#[test]
fn a_trace_cannot_drive_a_terminal() {
    let mut out = String::new();
    push_safe(&mut out, "a\x1b[31mb\u{9b}c\td\n");
    assert_eq!(out, "a\\u{1b}[31mb\\u{9b}c\td\n");
}

#[test]
fn messages_of_the_kernel() {
    let text = b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n3,340,6000001,-,caller=T1;two\\x0alines \\x1b\nnonsense\n30,341,7,-;daemon\n";
    let messages = kmsg::parse(text);
    assert_eq!(messages.len(), 3);
    assert_eq!(
        messages[0].properties,
        ["SUBSYSTEM=acpi", "DEVICE=+acpi:PNP0A03:00"]
    );
    assert_eq!((messages[1].level, messages[1].sequence), (3, 340));
    assert_eq!(
        messages[1].line(),
        "[    6.000001] two\n[    6.000001] lines \\u{1b}"
    );
    assert_eq!((messages[2].level, messages[2].facility), (6, 3));
    assert_eq!(kmsg::newest(text, 20), b"30,341,7,-;daemon\n");
    assert_eq!(kmsg::newest(text, 3), b"");
    assert_eq!(kmsg::newest(text, 1000), text);
    // Never from the middle of a record: a line that begins with a space belongs to the record before it.
    let cut = kmsg::newest(text, text.len() - 10);
    assert!(
        cut.starts_with(b"3,340"),
        "{:?}",
        String::from_utf8_lossy(cut)
    );
}
