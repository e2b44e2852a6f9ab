package control_test

import (
	"context"
	"fmt"
	"net/netip"

	"siptraced/cmd/siptraced/internal/control"
	"siptraced/rpc"
)

// switchboard is a daemon with one setting.
type switchboard struct{ traceOn any }

func (s *switchboard) Setting(name string) (any, bool) { return s.traceOn, name == control.TraceOn }
func (s *switchboard) Settings() []string              { return []string{control.TraceOn} }
func (s *switchboard) Counters() map[string]uint64     { return map[string]uint64{"received": 9} }
func (s *switchboard) Sources() []control.Source       { return nil }
func (s *switchboard) Sinks() []string                 { return nil }
func (s *switchboard) Sink(string) control.Sink        { return control.Sink{} }
func (s *switchboard) Spool() control.Spool            { return control.Spool{} }
func (s *switchboard) IsGauge(string) bool             { return false }
func (s *switchboard) Reload() ([]string, error)       { return nil, nil }

func (s *switchboard) Sockets() []control.Socket {
	return []control.Socket{{Net: "udp", Addr: netip.MustParseAddrPort("127.0.0.1:9060")}}
}

func (s *switchboard) Set(_ string, value any) (old any, err error) {
	old, s.traceOn = s.traceOn, value
	return old, nil
}

// A registry of methods, which package serve offers to kamcmd, kamctl, kamcli and
// over HTTP, and one of commands for openserctl.
func Example() {
	changed := func(_ context.Context, ch rpc.Change) {
		fmt.Printf("%s: %v -> %v by %s\n", ch.What, ch.Old, ch.New, ch.Method)
	}
	c := control.New(&switchboard{traceOn: int64(1)}, changed)
	methods, mi := rpc.NewRegistry(), rpc.NewRegistry()
	if err := c.Register(methods); err != nil {
		fmt.Println(err)
	}
	if err := c.RegisterMI(mi); err != nil {
		fmt.Println(err)
	}
	answer, err := methods.Call(context.Background(), &rpc.Call{Method: "siptrace.status", Params: []any{"off"}})
	fmt.Println(answer, err)
	answer, err = mi.Call(context.Background(), &rpc.Call{Method: "sip_trace"})
	fmt.Println(answer, err)
	// Output:
	// siptrace.trace_on: 1 -> 0 by siptrace.status
	// Disabled <nil>
	// off <nil>
}
