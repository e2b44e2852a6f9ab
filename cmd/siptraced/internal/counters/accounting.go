package counters

import (
	"slices"
	"strings"
)

// Equation is one line of the accounting: both sides have the same sum whenever
// nothing is under way.
type Equation struct {
	// Of says what is accounted for.
	Of string
	// In and Out are names of counters. NAME stands for the name of each
	// destination, and .* at the end for every counter below the name.
	In, Out []string
}

// Accounting is every equation.
func Accounting() []Equation {
	return []Equation{
		{Of: "intake", In: []string{"received", "made"}, Out: []string{"rejected.*", "dropped.*", "spooled"}},
		{
			Of:  "database",
			In:  []string{"store.backlog", "spooled"},
			Out: []string{"store.written", "store.set_aside", "store.missed", "store.skipped", "store.pending"},
		},
		{
			Of:  "scopes of rules",
			In:  []string{"rules.scopes_started"},
			Out: []string{"rules.scopes", "rules.scopes_ended", "rules.scopes_timed_out", "rules.scopes_evicted", "rules.scopes_stopped"},
		},
		{
			Of: "mirror NAME",
			In: []string{"mirror.NAME.backlog", "spooled"},
			Out: []string{
				"mirror.NAME.before", "mirror.NAME.sent", "mirror.NAME.failed", "mirror.NAME.too_large", "mirror.NAME.expired",
				"mirror.NAME.filtered", "mirror.NAME.skipped", "mirror.NAME.missed", "mirror.NAME.pending",
			},
		},
	}
}

// String is the equation as people write it.
func (e Equation) String() string {
	return strings.Join(e.In, " + ") + " = " + strings.Join(e.Out, " + ")
}

// Sums are the sums of both sides; destination stands for NAME.
func (e Equation) Sums(snapshot map[string]uint64, destination string) (in, out uint64) {
	return sum(snapshot, e.In, destination), sum(snapshot, e.Out, destination)
}

func sum(snapshot map[string]uint64, terms []string, destination string) (n uint64) {
	for name, value := range snapshot {
		if slices.ContainsFunc(terms, func(term string) bool {
			term = strings.Replace(term, "NAME", destination, 1)
			prefix, group := strings.CutSuffix(term, "*")
			return name == term || group && strings.HasPrefix(name, prefix)
		}) {
			n += value
		}
	}
	return n
}
