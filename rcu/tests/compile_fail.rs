//! What the compiler refuses.

#[test]
fn a_guard_cannot_live_across_an_await_of_a_task_that_may_hop() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
