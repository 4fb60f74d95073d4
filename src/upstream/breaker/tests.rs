use super::*;

const FAILURE: Sign = failure(Cause::Unavailable, None);
const SILENCE: Sign = failure(Cause::TimedOut(Silence::Headers), None);

const fn failure(cause: Cause, wait: Option<Duration>) -> Sign {
    Sign::Failure { cause, wait }
}

fn limit(seconds: u64) -> Sign {
    failure(Cause::RateLimited, Some(Duration::from_secs(seconds)))
}

/// A breaker, and a time that is set by hand.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            breaker: Breaker::default(),
            now: Instant::now(),
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn admit(&mut self) -> Ticket {
        self.breaker.admit(self.now).expect("leave to ask")
    }

    fn report(&mut self, ticket: Ticket, sign: Sign) -> Option<Change> {
        self.breaker.report(ticket, sign, self.now, 0.0)
    }

    /// Asks, and this comes of it.
    fn ask(&mut self, sign: Sign) -> Option<Change> {
        let ticket = self.admit();
        self.report(ticket, sign)
    }

    /// For how many milliseconds nobody asks.
    fn wait(&self) -> Option<u128> {
        let refusal = self.breaker.refusal(self.now);
        refusal.map(|refusal| refusal.wait.as_millis())
    }
}

#[test]
fn several_failures_in_a_row_open_it_and_an_answer_starts_the_count_anew() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        for _ in 1..FAILURES_MAX {
            assert_eq!(bench.ask(FAILURE), None);
        }
        assert_eq!(bench.ask(Sign::Answer), None);
    }
    for _ in 1..FAILURES_MAX {
        assert_eq!(bench.ask(FAILURE), None);
    }
    let opened = Change::Opened(Cause::Unavailable, PAUSE_MIN);
    assert_eq!(bench.ask(FAILURE), Some(opened));
    assert_eq!(bench.wait(), Some(1000));
    bench.pass(999);
    assert!(bench.breaker.admit(bench.now).is_err());
}

#[test]
fn one_limit_opens_it_for_as_long_as_it_says() {
    let check = |sign: Sign, expected: u128| {
        let mut bench = Bench::new();
        bench.ask(sign);
        assert_eq!(bench.wait(), Some(expected), "{sign:?}");
    };
    check(limit(0), 1000);
    check(limit(17), 17_000);
    check(limit(3600), 3_600_000);
    check(limit(21_600), 3_600_000);
    check(limit(u64::MAX), 3_600_000);
    check(failure(Cause::RateLimited, Some(Duration::MAX)), 3_600_000);
    check(failure(Cause::RateLimited, None), 1000);
}

#[test]
fn a_time_out_opens_it_unless_others_were_answered_meanwhile() {
    let mut bench = Bench::new();
    let silent = bench.admit();
    bench.ask(Sign::Answer);
    assert_eq!(bench.report(silent, SILENCE), None);
    assert_eq!(bench.wait(), None);
    bench.ask(SILENCE);
    assert_eq!(bench.wait(), Some(1000));
}

#[test]
fn one_caller_tries_and_all_others_are_refused_until_it_is_known() {
    let mut bench = Bench::new();
    bench.ask(limit(2));
    bench.pass(2000);
    let probe = bench.admit();
    for _ in 0..10 {
        assert!(bench.breaker.admit(bench.now).is_err());
    }
    assert_eq!(bench.report(probe, Sign::Answer), Some(Change::Closed));
    let (one, other) = (bench.admit(), bench.admit());
    assert_eq!(one, other);
}

#[test]
fn a_probe_that_goes_away_leaves_its_place_to_the_next() {
    let mut bench = Bench::new();
    bench.ask(limit(2));
    bench.pass(2000);
    let gone = bench.admit();
    bench.breaker.give_back(gone);
    let next = bench.admit();
    // What comes of it after all is nobody's business any more.
    assert_eq!(bench.report(gone, Sign::Answer), None);
    bench.breaker.give_back(gone);
    assert!(bench.breaker.admit(bench.now).is_err());
    assert_eq!(bench.report(next, Sign::Answer), Some(Change::Closed));
    bench.breaker.give_back(next);
    assert_eq!(bench.wait(), None);
}

#[test]
fn silence_is_taken_for_granted_until_a_moment_after_the_pause() {
    let mut bench = Bench::new();
    let silent = |bench: &Bench| bench.breaker.has_timed_out(bench.now);
    bench.ask(FAILURE);
    assert!(!silent(&bench));
    bench.ask(SILENCE);
    assert!(silent(&bench));
    bench.pass(1000 + 4999);
    assert!(silent(&bench));
    let gone = bench.admit();
    assert!(silent(&bench));
    bench.pass(1);
    assert!(!silent(&bench));
    // Whoever goes away has heard nothing either.
    bench.breaker.give_back(gone);
    assert!(!silent(&bench));
    bench.ask(SILENCE);
    assert!(silent(&bench));
    bench.pass(30_000);
    bench.ask(FAILURE);
    assert!(!silent(&bench));
}

#[test]
fn pauses_grow_up_to_a_limit_and_start_anew_after_a_while() {
    let mut bench = Bench::new();
    bench.ask(SILENCE);
    for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
        assert_eq!(bench.wait(), Some(expected * 1000));
        bench.pass(30_000);
        bench.ask(SILENCE);
    }
    for _ in 0..100 {
        bench.pass(30_000);
        bench.ask(SILENCE);
    }
    bench.pass(30_000);
    bench.ask(Sign::Answer);
    bench.pass(1000);
    // Back, and gone again.
    bench.ask(SILENCE);
    assert_eq!(bench.wait(), Some(30_000));
    bench.pass(30_000);
    bench.ask(Sign::Answer);
    bench.pass(120_000);
    bench.ask(SILENCE);
    assert_eq!(bench.wait(), Some(1000));
}

#[test]
fn a_failing_upstream_may_ask_for_a_minute() {
    let check = |seconds: u64, expected: u128| {
        let mut bench = Bench::new();
        let wait = Some(Duration::from_secs(seconds));
        bench.ask(failure(Cause::TimedOut(Silence::Connect), wait));
        assert_eq!(bench.wait(), Some(expected), "{seconds}");
    };
    check(0, 1000);
    check(7, 7000);
    check(u64::MAX, 60_000);
}

#[test]
fn what_was_asked_before_it_opened_says_nothing_about_later() {
    let mut bench = Bench::new();
    let early = bench.admit();
    bench.ask(SILENCE);
    assert_eq!(bench.report(early, Sign::Answer), None);
    assert_eq!(bench.report(early, FAILURE), None);
    assert_eq!(bench.wait(), Some(1000));
    bench.pass(1000);
    let probe = bench.admit();
    assert_eq!(bench.report(early, Sign::Answer), None);
    assert_eq!(bench.report(early, SILENCE), None);
    assert_eq!(bench.report(probe, Sign::Answer), Some(Change::Closed));
    for _ in 0..10 {
        assert_eq!(bench.report(early, SILENCE), None);
    }
    assert_eq!(bench.wait(), None);
    // A limit is one, whoever runs into it.
    bench.report(early, limit(5));
    bench.report(early, limit(9));
    assert_eq!(bench.wait(), Some(9000));
    bench.report(early, limit(3));
    assert_eq!(bench.wait(), Some(9000));
}

#[test]
fn chance_makes_a_pause_longer_never_shorter() {
    let check = |seconds, chance, milliseconds| {
        let wait = Some(Duration::from_secs(seconds));
        let pause = pause(Cause::RateLimited, wait, 0, chance);
        assert_eq!(pause.as_millis(), milliseconds);
    };
    check(1, 0.0, 1000);
    check(1, 1.0, 1200);
    check(10, 0.5, 10_500);
    check(3600, 1.0, 3_601_000);
}

#[test]
fn a_refusal_is_the_error_that_opened_it() {
    let error = |cause, milliseconds| {
        let wait = Duration::from_millis(milliseconds);
        Refusal { cause, wait }.error()
    };
    let limited = error(Cause::RateLimited, 1001);
    let seconds = Some(Duration::from_secs(2));
    assert!(matches!(limited, Error::RateLimited { retry_after } if retry_after == seconds));
    let failed = error(Cause::Unavailable, 5);
    assert!(matches!(failed, Error::Unavailable(_)));
    let silent = error(Cause::TimedOut(Silence::Connect), 5);
    assert!(matches!(silent, Error::TimedOut(Silence::Connect)));
}
