//! Errors of the text form; round trips are in `tests/round_trip.rs`.

use crate::parse;

const HEAD: &str = "module \"m\" {stage = model}\ndims N: 1..=8, R: 0..=8, B: 1..=2, T: 1..=16\n";

#[track_caller]
fn check(body: &str, expected: &str) {
    let text = format!("{HEAD}{body}");
    match parse(&text) {
        Ok(m) => assert_eq!(m.to_string(), expected, "parsed"),
        Err(e) => assert_eq!(e.to_string(), expected),
    }
}

#[test]
fn says_where_and_what_was_expected() {
    check(
        "weight @w : f32[4, 4 from \"a\"",
        "3:22: expected `]`, found `from`",
    );
    check(
        "weight @w : f64[4] from \"a\"",
        "3:13: expected an element type (f32, f16, bf16, i32, q8_0, …), found `f64`",
    );
    check(
        "weight @w : f32[K] from \"a\"",
        "3:17: expected an extent: a number, N, R, B or T",
    );
    check(
        "weight @w : f32[-1] from \"a\"",
        "3:17: expected an extent in range, found `-1`",
    );
    check(
        "weight @w : f32[1] from \"a",
        "3:25: this string has no end on its line",
    );
    check(
        "state @w : kv_cache<f16, k_dim = 4>",
        "3:26: expected `heads`, found `k_dim`",
    );
    check(
        "func @f() { %x = add }",
        "3:18: add: operand 1 (a) is missing",
    );
    check(
        "func @f(%x: f32[N]) {\n  %y = add %x, %z\n  return }",
        "4:16: `%z` is not defined above",
    );
    check(
        "func @f(%x: f32[N]) {\n  %x = add %x, %x\n  return }",
        "4:3: `%x` is defined twice",
    );
    check(
        "func @f(%x: f32[N]) { %y = frob %x return }",
        "3:28: unknown op `frob`",
    );
    check(
        "func @f(%x: f32[N]) { %y = add %x, %x {a = 1} return }",
        "3:28: unknown attribute `a`",
    );
    check(
        "func @f(%x: f32[N]) { %y = scale %x return }",
        "3:28: attribute `factor` is missing",
    );
    check(
        "func @f(%x: f32[N]) { %y = add %x, %x : f32[N], f32[N] return }",
        "3:28: 1 results with 2 types",
    );
    check(
        "func @f(%x: f32[N]) { %y = add %x, @w return }",
        "3:36: `@w` is not defined above",
    );
    check(
        "func @f(%x: f32[N]) { return",
        "3:29: expected a result's name, found the end of the text",
    );
    check(
        "func @f() { return } func @f() { return }",
        "3:27: function `@f` is defined twice",
    );
    check("/ comment", "3:1: expected `//`, found `/`");
    check("$", "3:1: unexpected character '$'");
}

#[test]
fn masks_do_not_mix_without_parentheses() {
    let body = "func @f(%x: f32[N, 1, T], %s: step) { %y = mask %x, %s {mask = causal & window(3) | causal} return }";
    check(
        body,
        "3:83: expected parentheses where `&` and `|` mix, found `|`",
    );
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("(", ")"), ("a<b = ", ">")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let text =
            format!("{HEAD}func @f(%x: f32[N]) {{ %y = scale %x {{factor = {nested}}} return }}");
        let e = parse(&text).map(|_| ()).map_err(|e| e.message);
        assert!(
            e.as_ref().is_err_and(|e| e.contains("nest deeper than 32")),
            "{e:?}"
        );
    }
}

#[test]
fn infers_types_that_are_left_out() {
    let text =
        format!("{HEAD}// a comment\nfunc @f(%x: f32[N, 4]) {{ %y = add %x, %x return y = %y }}");
    let m = parse(&text).expect("a module");
    assert!(m.to_string().contains("%y = add %x, %x : f32[N, 4]"), "{m}");
}
