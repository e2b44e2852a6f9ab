package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/rpc"
)

// fixed answers with the same value each time.
func fixed(v any) rpc.Handler {
	return func(context.Context, *rpc.Call) (any, error) { return v, nil }
}

func failing(err error) rpc.Handler {
	return func(context.Context, *rpc.Call) (any, error) { return nil, err }
}

func registry(t *testing.T, methods ...rpc.Method) *rpc.Registry {
	t.Helper()
	reg := rpc.NewRegistry()
	for _, m := range methods {
		if err := reg.Register(m); err != nil {
			t.Fatal(err)
		}
	}
	return reg
}

func TestRegister(t *testing.T) {
	tests := []struct {
		name   string
		method rpc.Method
		want   string // "" = accepted
	}{
		{"new", rpc.Method{Name: "a.b", Handler: fixed(1)}, ""},
		{"no name", rpc.Method{Handler: fixed(1)}, `rpc: method "": name or handler missing`},
		{"no handler", rpc.Method{Name: "a.c"}, `rpc: method "a.c": name or handler missing`},
		{"twice", rpc.Method{Name: "a.b", Handler: fixed(1)}, `rpc: method "a.b": registered twice`},
		{"built in", rpc.Method{Name: "system.listMethods", Handler: fixed(1)}, `rpc: method "system.listMethods": registered twice`},
	}
	reg := rpc.NewRegistry()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := reg.Register(tt.method); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCall(t *testing.T) {
	reg := registry(t,
		rpc.Method{Name: "core.version", Help: "Returns the version.", Handler: fixed("v1")},
		rpc.Method{Name: "no.help", Handler: fixed(nil)},
		rpc.Method{Name: "one", Array: true, Handler: fixed("x")},
		rpc.Method{Name: "none", Array: true, Handler: fixed(nil)},
		rpc.Method{Name: "many", Array: true, Handler: fixed(rpc.List{"x", "y"})},
		rpc.Method{Name: "records", Array: true, Handler: fixed(rpc.Records{"x", "y"})},
		rpc.Method{Name: "fault", Handler: failing(fmt.Errorf("wrapped: %w", rpc.Faultf(404, "no %s", "such")))},
		rpc.Method{Name: "error", Handler: failing(errors.New("open /etc/secret: denied"))},
		rpc.Method{Name: "bad.type", Handler: fixed(rpc.List{rpc.Struct{{"a", rpc.List{5}}}})},
		rpc.Method{Name: "panic", Handler: func(context.Context, *rpc.Call) (any, error) { panic("boom") }},
	)
	reg.Unknown = func(_ context.Context, c *rpc.Call) (any, bool, error) {
		switch {
		case c.Method == "tm.stats":
			return "forwarded", true, nil
		case c.Method == "away":
			return nil, false, rpc.Faultf(500, "away")
		case c.Method == "system.methodHelp" && c.Params[0] == "tm.stats":
			return "forwarded help", true, nil
		}
		return nil, false, nil
	}
	reg.UnknownNames = func(context.Context) []string { return []string{"tm.stats", "core.version"} }
	tests := []struct {
		name   string
		method string
		params []any
		want   any
		err    string
	}{
		{"value", "core.version", nil, "v1", ""},
		{"array of one", "one", nil, rpc.List{"x"}, ""},
		{"array of none", "none", nil, rpc.List{}, ""},
		{"array of two", "many", nil, rpc.List{"x", "y"}, ""},
		{"array of records", "records", nil, rpc.List{"x", "y"}, ""},
		{"fault", "fault", nil, nil, "404 no such"},
		{"error told neutrally", "error", nil, nil, "500 Internal Server Error"},
		{"unknown type told neutrally", "bad.type", nil, nil, "500 Internal Server Error"},
		{"panic told neutrally", "panic", nil, nil, "500 Internal Server Error"},
		{"case counts", "Core.Version", nil, nil, "rpc: unknown method"},
		{"empty name", "", nil, nil, "rpc: unknown method"},
		{"forwarded", "tm.stats", nil, "forwarded", ""},
		{"other server away", "away", nil, nil, "500 away"},
		{"help", "system.methodHelp", []any{"core.version"}, "Returns the version.", ""},
		{"help, surplus parameter", "system.methodHelp", []any{"core.version", "x"}, "Returns the version.", ""},
		{"help of nothing", "system.methodHelp", nil, nil, "400 Method Name Expected"},
		{"help of a number", "system.methodHelp", []any{int64(5)}, nil, "400 Method Name Expected"},
		{"help of an unknown one", "system.methodHelp", []any{"no.such"}, nil, "400 command not found"},
		{"help without a text", "system.methodHelp", []any{"no.help"}, "undocumented", ""},
		{"help of a forwarded one", "system.methodHelp", []any{"tm.stats"}, "forwarded help", ""},
		{"signature", "system.methodSignature", []any{"core.version"}, nil, "500 Not Implemented Yet"},
		{
			"list", "system.listMethods", nil,
			rpc.List{
				"bad.type", "core.version", "error", "fault", "many", "no.help", "none", "one", "panic", "records",
				"system.listMethods", "system.methodHelp", "system.methodSignature", "tm.stats",
			},
			"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := reg.Call(t.Context(), &rpc.Call{Method: tt.method, Params: tt.params})
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
			if text := fmt.Sprint(err); err != nil && text != tt.err || err == nil && tt.err != "" {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestNoForwarding(t *testing.T) {
	reg := registry(t)
	if _, err := reg.Call(t.Context(), &rpc.Call{Method: "x.y"}); !errors.Is(err, rpc.ErrUnknownMethod) {
		t.Errorf("got %v, want %v", err, rpc.ErrUnknownMethod)
	}
	want := []string{"system.listMethods", "system.methodHelp", "system.methodSignature"}
	if got := reg.Names(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What the caller isn't told must reach the log.
func TestHooks(t *testing.T) {
	secret := errors.New("secret")
	reg := rpc.NewRegistry()
	var calls []string
	var last error
	reg.OnCall = func(_ context.Context, c *rpc.Call, err error, took time.Duration) {
		calls, last = append(calls, c.Method), err
		if took < 0 {
			t.Errorf("%s took %v", c.Method, took)
		}
	}
	handlers := map[string]rpc.Handler{
		"bad":   failing(secret),
		"panic": func(context.Context, *rpc.Call) (any, error) { panic("boom") },
		"int":   fixed(rpc.Records{5}),
		"off":   fixed("Disabled"),
	}
	for name, h := range handlers {
		if err := reg.Register(rpc.Method{Name: name, Handler: h}); err != nil {
			t.Fatal(err)
		}
	}
	peer := rpc.Peer{Transport: "unix", Addr: "/run/ctl", UID: 0, GID: 0, PID: 42}
	call := func(name string) error {
		_, err := reg.Call(t.Context(), &rpc.Call{Method: name, Peer: peer})
		return err
	}

	if err := call("bad"); !errors.Is(err, rpc.ErrInternal) || !errors.Is(last, secret) {
		t.Errorf("told %v, logged %v; want %v and %v", err, last, rpc.ErrInternal, secret)
	}
	_ = call("panic")
	if p, ok := errors.AsType[*rpc.PanicError](last); !ok || p.Value != "boom" || !strings.Contains(string(p.Stack), "rpc_test") {
		t.Errorf("logged %v, want the panic and its stack", last)
	}
	if _ = call("int"); last == nil || last.Error() != "rpc: result holds a value of type int" {
		t.Errorf("logged %v, want the type", last)
	}
	if err := call("off"); err != nil {
		t.Error(err)
	}
	if err := call("no.such"); !errors.Is(err, rpc.ErrUnknownMethod) {
		t.Errorf("got %v, want %v", err, rpc.ErrUnknownMethod)
	}
	if want := []string{"bad", "panic", "int", "off", "no.such"}; !slices.Equal(calls, want) {
		t.Errorf("calls: got %q, want %q", calls, want)
	}
}

func TestPeer(t *testing.T) {
	tests := []struct {
		peer rpc.Peer
		want string
	}{
		{rpc.NewPeer("fifo", ""), "fifo"},
		{rpc.NewPeer("tcp", "192.0.2.1:5060"), "tcp:192.0.2.1:5060"},
		{rpc.Peer{Transport: "unix", Addr: "/run/ctl", UID: 1000, GID: 100, PID: -1}, "unix:/run/ctl uid=1000 gid=100"},
	}
	for _, tt := range tests {
		if got := tt.peer.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestStr(t *testing.T) {
	c := rpc.Call{Params: []any{"on", int64(1), true, nil, []byte("on")}}
	for i, want := range []bool{true, false, false, false, false, false} {
		if s, ok := c.Str(i); ok != want || ok && s != "on" {
			t.Errorf("parameter %d: got %q, %t; want %t", i, s, ok, want)
		}
	}
}

func TestStruct(t *testing.T) {
	long := make(rpc.Struct, 40)
	for i := range long {
		long[i] = rpc.Member{Name: fmt.Sprint(i), Value: i}
	}
	tests := []struct {
		name string
		s    rpc.Struct
		want bool
	}{
		{"empty", nil, false},
		{"distinct", rpc.Struct{{"a", 1}, {"A", 2}}, false},
		{"repeated", rpc.Struct{{"a", 1}, {"b", 2}, {"a", 3}}, true},
		{"long", long, false},
		{"long, repeated", append(long[:39:39], rpc.Member{Name: "0"}), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.Repeats(); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
	if v, ok := tests[2].s.Get("a"); v != 1 || !ok {
		t.Errorf("got %v, %t; want the first of the name", v, ok)
	}
	if v, ok := long.Get("x"); v != nil || ok {
		t.Errorf("got %v, %t; want nothing", v, ok)
	}
}

// Methods may come and be called at the same time.
func TestConcurrent(t *testing.T) {
	reg := rpc.NewRegistry()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				name := fmt.Sprintf("m.%d.%d", i, j)
				if err := reg.Register(rpc.Method{Name: name, Handler: fixed(name)}); err != nil {
					t.Error(err)
				}
				if v, err := reg.Call(context.Background(), &rpc.Call{Method: name}); v != name || err != nil {
					t.Errorf("got %v, %v; want %q", v, err, name)
				}
				reg.Names()
			}
		})
	}
	wg.Wait()
	if got, want := len(reg.Names()), 203; got != want {
		t.Errorf("got %d methods, want %d", got, want)
	}
}

func BenchmarkCall(b *testing.B) {
	reg := rpc.NewRegistry()
	if err := reg.Register(rpc.Method{Name: "core.version", Handler: fixed("v1")}); err != nil {
		b.Fatal(err)
	}
	call := &rpc.Call{Method: "core.version"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Call(b.Context(), call); err != nil {
			b.Fatal(err)
		}
	}
}
