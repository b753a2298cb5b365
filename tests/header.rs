//! include/evloop.h is what the sources say, byte for byte, and all of it is called
//! by the tests of every call.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

#[path = "../header/arrange.rs"]
mod arrange;

// Not env!: without the variable this file would not compile, and the reason,
// that cbindgen could not read the sources, would stay hidden.
const GENERATED: Option<&str> = option_env!("EVLOOP_GENERATED_HEADER");

#[test]
fn the_header_is_up_to_date() {
    let generated = GENERATED.expect("no header was generated: `cargo build` says why");
    let generated = std::fs::read_to_string(generated).expect("the generated header");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/include/evloop.h");
    let kept = std::fs::read_to_string(path).expect("include/evloop.h");
    for (number, (new, old)) in (1..).zip(generated.lines().zip(kept.lines())) {
        assert_eq!(old, new, "include/evloop.h:{number}: run `make header`");
    }
    assert!(
        generated == kept,
        "include/evloop.h has another length than the generated one: run `make header`"
    );
}

/// The functions that the header declares.
fn functions(header: &str) -> Vec<&str> {
    let code = header.lines().filter(|line| !line.trim_start().starts_with(['*', '/']));
    let declared = code.filter(|line| !line.starts_with("typedef"));
    let names = declared.filter_map(|line| line.split_once('(')?.0.split([' ', '*']).next_back());
    names.filter(|name| name.starts_with("evloop_") || name.starts_with("tfd_")).collect()
}

#[test]
fn the_tests_of_every_call_make_every_call() {
    let read = |path: &str| {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).expect(&path)
    };
    let (header, calls) = (read("include/evloop.h"), read("c-tests/every_call.h"));
    let functions = functions(&header);
    assert!(functions.len() > 100, "{} functions were found", functions.len());
    let is_made = |name: &&&str| calls.contains(&format!("({name}, ("));
    let missing: Vec<_> = functions.iter().filter(|name| !is_made(name)).collect();
    assert!(missing.is_empty(), "c-tests/every_call.h does not call {missing:?}");
}

/// The order that header/arrange.rs gives to what cbindgen has generated.
mod order {
    use super::arrange::arrange;

    const SOURCES: &str = "pub const EVLOOP_A_BIT: u32 = 0x800;\npub const EVLOOP_B: c_int = 2;";
    const LIST: &str = "section Second: b\n| Introduction.\nEVLOOP_B\nevloop_b\nevloop_s_t\n\n\
        # A comment.\nsection First: a\nEVLOOP_A_*\nevloop_a*\n";

    fn item(code: &str) -> String {
        format!("/**\n * About it.\n */\n{code}\n\n")
    }

    /// The same in the header, where comments of one line are on one line.
    fn short(code: &str) -> String {
        format!("/** About it. */\n{code}\n\n")
    }

    /// A header as cbindgen writes it: extern "C" begins before the functions.
    fn generated(items: &[&str]) -> String {
        let (types, functions) = items.split_at(4);
        let text = |items: &[&str]| items.iter().map(|code| item(code)).collect::<String>();
        [
            "/*\n * Contents:\n * @contents\n */\n\n\n#define EVLOOP_H\n\n",
            &text(types),
            "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n",
            &text(functions),
            "#ifdef __cplusplus\n}\n#endif\n\n#endif /* EVLOOP_H */\n",
        ]
        .concat()
    }

    const STRUCTURE: &str = "typedef struct evloop_s_t {\n  /**\n   * One.\n   */\n  int b;\n\
        \x20 /**\n   * Two\n   * lines.\n   */\n  int c;\n} evloop_s_t;";
    const SHORT_STRUCTURE: &str = "typedef struct evloop_s_t {\n  /** One. */\n  int b;\n\
        \x20 /**\n   * Two\n   * lines.\n   */\n  int c;\n} evloop_s_t;";

    const ITEMS: &[&str] = &[
        "#define EVLOOP_A_BIT 2048",
        "#define EVLOOP_B 2",
        "typedef int (*evloop_a_t)(void *user_data);",
        STRUCTURE,
        "int evloop_a(evloop_a_t callback,\n             int (*next)(int));",
        "const char *evloop_b(void);",
    ];

    #[test]
    fn sections_are_in_the_order_of_the_list() {
        let header = arrange(&generated(ITEMS), SOURCES, LIST).unwrap();
        let rule = "-".repeat(72);
        let parts = [
            "/*\n * Contents:\n *   Second: b\n *   First: a\n */\n\n#define EVLOOP_H\n\n",
            "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n",
            &format!("/* {rule}\n * Second: b\n * {rule}\n *\n * Introduction.\n */\n\n"),
            &short(ITEMS[1]),
            &short(ITEMS[5]),
            &short(SHORT_STRUCTURE),
            &format!("/* {rule}\n * First: a\n * {rule} */\n\n"),
            &short("#define EVLOOP_A_BIT 0x800"),
            &short(ITEMS[2]),
            &short(ITEMS[4]),
            "#ifdef __cplusplus\n}\n#endif\n\n#endif /* EVLOOP_H */\n",
        ];
        assert_eq!(header, parts.concat());
    }

    /// The message for a header with one more item, and for other lists.
    fn refused(more: &str, sources: &str, list: &str) -> String {
        let items: Vec<&str> = ITEMS.iter().copied().chain([more]).collect();
        arrange(&generated(&items), sources, list).err().unwrap_or_default()
    }

    #[test]
    fn a_function_that_appears_twice_is_refused() {
        let message = refused("int evloop_a(void);", SOURCES, LIST);
        assert_eq!(message, "evloop_a is in the generated header twice");
    }

    #[test]
    fn a_constant_without_a_section_is_refused() {
        let message = refused("#define EVLOOP_C 3", SOURCES, LIST);
        assert_eq!(message, "EVLOOP_C belongs to no section: add it to header/sections.txt");
    }

    #[test]
    fn an_unknown_section_is_refused() {
        let comment = "x */\n\n/**\n * @section Third\n *\n * About it.\n */\n";
        let more = format!("int evloop_a1(void); /* {comment}int evloop_a2(void);");
        let message = refused(&more, SOURCES, LIST);
        let expected =
            "evloop_a2: unknown section \"Third\"; the sections are in header/sections.txt";
        assert_eq!(message, expected);
    }

    #[test]
    fn a_declaration_without_a_comment_is_refused() {
        let message = refused("int evloop_a1(void);\n\nint evloop_a2(void);", SOURCES, LIST);
        assert_eq!(message, "no declaration with a comment: \"int evloop_a2(void);\"");
    }

    #[test]
    fn a_type_that_comes_after_its_use_is_refused() {
        let list = format!("section Zero\nevloop_c\n{LIST}");
        let message = refused("void evloop_c(struct evloop_s_t *s);", SOURCES, &list);
        let expected = "evloop_c uses evloop_s_t, which header/sections.txt puts behind it";
        assert_eq!(message, expected);
    }

    #[test]
    fn mistakes_in_the_list_are_refused() {
        for (list, expected) in [
            (format!("{LIST}evloop_c\n"), "nothing in the header is \"evloop_c\""),
            (format!("{LIST}evloop_b\n"), "\"evloop_b\" is there twice"),
            (format!("evloop_c\n{LIST}"), "\"evloop_c\" comes before the first section"),
            (format!("{LIST}sektion Third\n"), "\"sektion Third\" is neither a section nor a name"),
        ] {
            let message = refused("int evloop_a1(void);", SOURCES, &list);
            assert_eq!(message, format!("header/sections.txt: {expected}"));
        }
    }

    #[test]
    fn a_flag_whose_value_is_not_that_of_the_sources_is_refused() {
        let sources = SOURCES.replace("0x800", "0x400");
        let message = refused("int evloop_a1(void);", &sources, LIST);
        let expected = "EVLOOP_A_BIT: 0x400 in the sources, not \"#define EVLOOP_A_BIT 2048\"";
        assert_eq!(message, expected);
    }
}
