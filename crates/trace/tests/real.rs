//! A trace of a real kernel gives the lines that the kernel itself printed.

mod common;

use kho_trace::dat;
use kho_trace::read::{Knowledge, Merge};
use kho_trace::ring::Event;

#[test]
fn lines_are_the_kernels_own() {
    let taken = common::taken();
    let knowledge = Knowledge::new(&taken.meta).unwrap();
    let buffers: Vec<_> = taken
        .views()
        .into_iter()
        .filter(|b| b.array.is_empty())
        .collect();
    let mut merge = Merge::new(&buffers, knowledge.layout);
    let lines: Vec<String> = merge
        .by_ref()
        .map(|record| knowledge.line(&taken.meta, &buffers[record.buffer], &record.event))
        .collect();
    assert_eq!(lines, common::TEXT.lines().collect::<Vec<_>>());
    assert_eq!(merge.problems(), []);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("myprobe: (do_sys_openat2+0x0/"))
    );
}

#[test]
fn the_instance_has_events_of_its_own() {
    let taken = common::taken();
    let knowledge = Knowledge::new(&taken.meta).unwrap();
    let buffers: Vec<_> = taken
        .views()
        .into_iter()
        .filter(|b| b.array == "other")
        .collect();
    let records: Vec<_> = Merge::new(&buffers, knowledge.layout).collect();
    assert!(!records.is_empty());
    for record in records {
        let format = knowledge.format(record.event.data).unwrap();
        assert_eq!(
            (format.system.as_str(), format.name.as_str()),
            ("sched", "sched_wakeup")
        );
        let fields = knowledge.fields(record.event.data);
        assert!(
            fields["comm"].is_string() && fields["pid"].is_i64(),
            "{fields:?}"
        );
    }
}

#[test]
fn a_trace_dat_is_what_was_read_from_one() {
    let taken = common::taken();
    let mut bytes = Vec::new();
    dat::write(&taken.meta, &taken.views(), &mut bytes).unwrap();
    let again = common::read_dat(&bytes);
    assert_eq!(again.buffers, taken.buffers);
    assert_eq!(again.meta, taken.meta);
    assert_eq!(bytes.len() % 4096, 0, "pages end the file");

    // The file has the clock of the top level, or that of the instance if the trace has no top level.
    let clocks = |meta: &kho_trace::meta::Meta| -> Vec<String> {
        let mut bytes = Vec::new();
        dat::write(meta, &taken.views(), &mut bytes).unwrap();
        let again = common::read_dat(&bytes);
        assert_eq!(again.buffers, taken.buffers);
        again.meta.arrays.into_iter().map(|a| a.clock).collect()
    };
    let mut meta = taken.meta.clone();
    assert!(meta.arrays.len() > 1);
    meta.arrays[0].clock = "counter".to_owned();
    assert!(clocks(&meta).iter().all(|clock| clock == "counter"));
    meta.arrays.remove(0);
    meta.arrays[0].clock = "x86-tsc".to_owned();
    assert!(clocks(&meta).iter().all(|clock| clock == "x86-tsc"));
}

#[test]
fn a_trace_dat_has_one_size_of_pages() {
    let taken = common::taken();
    let views = taken.views();
    let mut wide = views[0];
    wide.array = "wide";
    // Sub-buffers of two pages (`buffer_subbuf_size_kb`).
    let doubled: Vec<u8> = wide
        .bytes
        .chunks(4096)
        .flat_map(|page| page.iter().copied().chain([0; 4096]))
        .collect();
    (wide.page_size, wide.bytes) = (8192, &doubled);
    let mut bytes = Vec::new();
    dat::write(&taken.meta, &[views[0], wide], &mut bytes).unwrap();
    assert_eq!(bytes[14..18], 8192u32.to_le_bytes());
    let again = common::read_dat(&bytes);
    assert!(again.buffers.iter().all(|buffer| buffer.bytes == doubled));
    assert_eq!(again.buffers.len(), 2);
    assert_eq!(bytes.len() % 8192, 0, "pages end the file");
}

#[test]
fn a_description_comes_back_and_another_version_is_refused() {
    use kho_trace::meta::{Meta, MetaError};
    let mut meta = common::taken().meta;
    assert_eq!(Meta::from_bytes(&meta.to_bytes().unwrap()).unwrap(), meta);
    meta.version = 2;
    let error = Meta::from_bytes(&meta.to_bytes().unwrap()).unwrap_err();
    assert!(matches!(error, MetaError::Version(2)), "{error}");
    for bad in [&b""[..], b"{}", b"[", b"{\"version\":1}"] {
        assert!(Meta::from_bytes(bad).is_err());
    }
}

#[test]
fn a_kind_of_event_that_nobody_describes_is_shown_as_bytes() {
    let mut taken = common::taken();
    taken.meta.events.retain(|event| event.system != "kprobes");
    let knowledge = Knowledge::new(&taken.meta).unwrap();
    let buffers = taken.views();
    let unknown = Merge::new(&buffers, knowledge.layout)
        .map(|record| knowledge.body(None, &record.event))
        .filter(|body| body.starts_with("unknown event "))
        .count();
    assert!(unknown > 5, "{unknown}");
}

#[test]
fn a_buffer_that_was_cut_is_reported_and_the_rest_is_shown() {
    let taken = common::taken();
    let knowledge = Knowledge::new(&taken.meta).unwrap();
    let mut buffers = taken.views();
    let whole = Merge::new(&buffers, knowledge.layout).count();
    buffers[0].bytes = &buffers[0].bytes[..4000];
    let mut merge = Merge::new(&buffers, knowledge.layout);
    let rest = merge.by_ref().count();
    assert!(rest > 0 && rest < whole);
    assert_eq!(merge.problems().len(), 1);
    assert_eq!(
        merge.problems()[0].to_string(),
        "CPU 0, page 0: a page of 0xfa0 bytes has no header"
    );
}

/// No format and no record names the event to which an event probe is attached; `dynamic_events` does.
#[test]
fn an_event_probe_names_its_event() {
    use kho_trace::meta::{EventText, Meta};
    let format = "name: opened\nID: 7\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:s32 dfd;\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \" dfd=%d\", REC->dfd\n";
    let shown = |probes: &str| {
        let meta = Meta {
            events: vec![EventText {
                system: "eprobes".to_owned(),
                format: format.to_owned(),
            }],
            probes: probes.to_owned(),
            ..common::taken().meta
        };
        let data = [7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
        let (time, at, data) = (0, 0, &data[..]);
        let knowledge = Knowledge::new(&meta).unwrap();
        knowledge.body(None, &Event { time, data, at })
    };
    let probes = "p:kprobes/opened do_sys_open dfd=%di\ne:eprobes/opened syscalls.sys_enter_openat dfd=$dfd:s32\n";
    assert_eq!(shown(probes), "opened: (syscalls.sys_enter_openat) dfd=3");
    assert_eq!(shown(""), "opened:  dfd=3");
}

#[test]
fn a_string_that_a_probe_could_not_read_is_a_fault() {
    use kho_trace::meta::{EventText, Meta};
    let format = "name: opened\nID: 7\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:s32 dfd;\toffset:16;\tsize:4;\tsigned:1;\n\tfield:__data_loc char[] name;\toffset:20;\tsize:4;\tsigned:1;\n\nprint fmt: \"(%lx) dfd=%d name=\\\"%s\\\" again=%d\", REC->__probe_ip, REC->dfd, __get_str(name), REC->dfd\n";
    let meta = Meta {
        events: vec![EventText {
            system: "kprobes".to_owned(),
            format: format.to_owned(),
        }],
        ..common::taken().meta
    };
    let knowledge = Knowledge::new(&meta).unwrap();
    let mut record = vec![0; 28];
    record[0] = 7;
    record[16] = 3;
    let body = |data: &[u8]| {
        let (time, at) = (0, 0);
        knowledge.body(None, &Event { time, data, at })
    };
    assert_eq!(body(&record), "opened: (0x0) dfd=3 name=(fault) again=3");
    // Two bytes at 24: a letter and a NUL.
    record[20..24].copy_from_slice(&((2u32 << 16) | 24).to_le_bytes());
    record[24] = b'x';
    assert_eq!(body(&record), "opened: (0x0) dfd=3 name=\"x\" again=3");
}
