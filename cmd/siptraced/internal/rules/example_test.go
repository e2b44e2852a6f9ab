package rules_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
	"siptraced/rpc"
)

// nobody takes what commands emit.
type nobody struct{}

func (nobody) Emit(*siptrace.Record) {}

// One rule chooses the calls of a user, and names the row's traced_user.
func Example() {
	e, err := rules.New(rules.Options{
		Config: rules.Config{Params: siptrace.DefaultParams()}, Counters: counters.New(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	r, err := rules.ParseWords([]string{"filter=from.uri.user == 'alice'", "users=alice"}, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := e.Start(r); err != nil {
		fmt.Println(err)
		return
	}

	d := e.Decider().NewDecision()
	for _, user := range []string{"alice", "bob"} {
		text := "OPTIONS sip:x SIP/2.0\r\nFrom: <sip:" + user + "@h>;tag=f\r\nTo: <sip:x@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
		var m sipmsg.Message
		if err := m.Parse([]byte(text)); err != nil {
			fmt.Println(err)
			return
		}
		rec := siptrace.Record{CallID: m.CallID, Msg: m.Raw}
		outcome, further := d.Decide(&rec, &m)
		fmt.Printf("%s: %s, users %q, %d records more\n", user, outcome, rec.Users, len(further))
	}
	for _, m := range e.Methods(nobody{}, func(context.Context, rpc.Change) {})[:3] {
		fmt.Println(m.Name)
	}
	// Output:
	// alice: spooled, users ["alice"], 0 records more
	// bob: spooled, users [], 0 records more
	// siptrace.trace.start
	// siptrace.trace.list
	// siptrace.trace.stop
}
