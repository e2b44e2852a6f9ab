package counters

import (
	"strings"
	"testing"
)

// Every outcome has a counter, and all of them are in the accounting of the
// intake.
func TestOutcomes(t *testing.T) {
	set := New()
	count := set.Outcomes()
	seen := map[string]bool{}
	for o := range outcomes {
		name := o.String()
		if name == "" || seen[name] {
			t.Errorf("outcome %d: the name %q is missing, or another's too", o, name)
		}
		seen[name] = true
		before, _ := Accounting()[0].Sums(set.Snapshot(), "")
		if count.Add(o); o == Rejected {
			count.Reject("cause")
		}
		in, out := Accounting()[0].Sums(set.Snapshot(), "")
		counted := o != Spooled && o != Parked
		if in != before || (out > 0) != counted && o <= Rejected {
			t.Errorf("%s: in %d, out %d", name, in, out)
		}
		if n := set.Snapshot()[name]; o > Rejected && (n != 1 || !strings.HasPrefix(name, "dropped.")) {
			t.Errorf("%s is counted %d times", name, n)
		}
	}
	if n := set.Snapshot()["rejected.cause"]; n != 1 {
		t.Errorf("rejected.cause: %d", n)
	}
	if _, out := Accounting()[0].Sums(set.Snapshot(), ""); out != uint64(outcomes)-2 {
		t.Errorf("%d of %d outcomes are in the accounting", out, outcomes-2)
	}
}

func TestSums(t *testing.T) {
	snapshot := map[string]uint64{
		"received": 10, "made": 2, "rejected.a": 1, "rejected.b": 1, "dropped.x": 3, "spooled": 7, "rejectedness": 100,
		"store.written": 6, "store.pending": 1, "mirror.a.sent": 7, "mirror.b.sent": 5, "mirror.b.pending": 1, "mirror.b.before": 1,
	}
	for _, e := range Accounting() {
		for _, name := range []string{"a", "b"} {
			if in, out := e.Sums(snapshot, name); in != out {
				t.Errorf("%s, %s: %d, but %d", e, name, in, out)
			}
		}
	}
	snapshot["mirror.b.sent"]++
	if in, out := Accounting()[3].Sums(snapshot, "b"); in == out {
		t.Error("one too many, and the sums are the same")
	}
	if got, want := Accounting()[0].String(), "received + made = rejected.* + dropped.* + spooled"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
