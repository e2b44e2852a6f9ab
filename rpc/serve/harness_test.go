package serve_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
	"siptraced/rpc/flexicli"
	"siptraced/rpc/jsonrpc"
	"siptraced/rpc/serve"
)

// shortDir is a temporary folder whose name leaves room for a socket's name
// within the 107 bytes of a unix address.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// refusals counts what a server refuses.
type refusals struct {
	mu     sync.Mutex // covers counts
	counts map[string]int
}

func (r *refusals) add(cause string, _ rpc.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[string]int)
	}
	r.counts[cause]++
}

func (r *refusals) get(cause string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[cause]
}

// wait waits until a cause was counted n times.
func (r *refusals) wait(t testing.TB, cause string, n int) {
	t.Helper()
	for end := time.Now().Add(patience); r.get(cause) < n; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("%s: counted %d times, want %d; all: %v", cause, r.counts[cause], n, r.counts)
		}
	}
}

// server is a running server with every kind of listener in one folder.
type server struct {
	*serve.Server
	refusals
	dir                                    string
	ctl, ctlGram, fifo, gram, mi, flexisip string // paths
	fifo2, replies                         string // a JSON-RPC FIFO with a reply folder of its own
	tcp, udp, jsonTCP, jsonUDP, http       string // addresses
}

// start runs a server on all transports; it is closed at the end of the test.
func start(t testing.TB, cfg serve.Config, h serve.Handlers) *server {
	t.Helper()
	s := &server{dir: shortDir(t)}
	in := func(name string) string { return s.dir + "/" + name }
	s.ctl, s.ctlGram, s.fifo, s.gram, s.mi, s.flexisip = in("ctl"), in("ctld"), in("fifo"), in("gram"), in("mi"), in("flexisip-proxy")
	s.fifo2, s.replies = in("fifo2"), in("replies")
	if err := os.Mkdir(s.replies, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg.Listeners = []serve.Listener{
		{Protocol: serve.Ctl, Address: "unix:" + s.ctl},
		{Protocol: serve.Ctl, Address: "unixd:" + s.ctlGram},
		{Protocol: serve.Ctl, Address: "tcp:127.0.0.1:0"},
		{Protocol: serve.Ctl, Address: "udp:127.0.0.1:0"},
		{Protocol: serve.JSONRPC, Address: "fifo:" + s.fifo, ReplyDir: "/tmp"},
		{Protocol: serve.JSONRPC, Address: "unixd:" + s.gram},
		{Protocol: serve.JSONRPC, Address: "tcp:127.0.0.1:0"},
		{Protocol: serve.JSONRPC, Address: "udp:127.0.0.1:0"},
		{Protocol: serve.HTTP, Address: "tcp:127.0.0.1:0"},
		{Protocol: serve.MI, Address: "fifo:" + s.mi, ReplyDir: s.replies},
		{Protocol: serve.Flexisip, Address: "unix:" + s.flexisip},
		{Protocol: serve.JSONRPC, Address: "fifo:" + s.fifo2, ReplyDir: s.replies},
	}
	if h.Registry == nil {
		h.Registry = tracing(t)
	}
	if h.MI == nil {
		h.MI = miCommands(t)
	}
	h.Flexisip = settings{}
	h.Refused = s.add
	h.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	if s.Server, err = serve.Listen(t.Context(), cfg, h); err != nil {
		t.Fatal(err)
	}
	bound := s.Addresses()
	host := func(i int) string { return bound[i][strings.Index(bound[i], ":")+1:] }
	s.tcp, s.udp, s.jsonTCP, s.jsonUDP, s.http = host(2), host(3), host(6), host(7), host(8)
	s.Serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// register adds methods to a new registry.
func register(t testing.TB, methods map[string]rpc.Handler) *rpc.Registry {
	t.Helper()
	reg := rpc.NewRegistry()
	for name, h := range methods {
		if err := reg.Register(rpc.Method{Name: name, Help: helps[name], Handler: h}); err != nil {
			t.Fatal(err)
		}
	}
	return reg
}

var helps = map[string]string{
	"siptrace.status": "Get status or turn on/off siptrace. Parameters: on, off or check.",
}

// tracing has siptrace.status with its state, and methods that misbehave.
func tracing(t testing.TB) *rpc.Registry {
	t.Helper()
	var mu sync.Mutex
	status := "Enabled"
	return register(t, map[string]rpc.Handler{
		"siptrace.status": func(_ context.Context, c *rpc.Call) (any, error) {
			word, ok := c.Str(0)
			if !ok {
				return nil, rpc.Faultf(500, "Not enough parameters (on, off or check)")
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case word == "on":
				status = "Enabled"
			case word == "off":
				status = "Disabled"
			case word != "check":
				return nil, rpc.Faultf(500, "Bad parameter (on, off or check)")
			}
			return status, nil
		},
		"test.peer": func(_ context.Context, c *rpc.Call) (any, error) {
			return c.Peer.String(), nil
		},
		"test.big": func(context.Context, *rpc.Call) (any, error) {
			return strings.Repeat("x", 120<<10), nil
		},
		"test.slow": func(ctx context.Context, _ *rpc.Call) (any, error) {
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
			return "done", nil
		},
		"test.stuck": func(ctx context.Context, _ *rpc.Call) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
}

// miCommands is sip_trace with its state, for the MI FIFO.
func miCommands(t testing.TB) *rpc.Registry {
	t.Helper()
	var mu sync.Mutex
	on := false
	return register(t, map[string]rpc.Handler{"sip_trace": func(_ context.Context, c *rpc.Call) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(c.Params) == 0 {
			return map[bool]string{true: "on", false: "off"}[on], nil
		}
		switch word, _ := c.Str(0); word {
		case "on", "off":
			on = word == "on"
		default:
			return nil, rpc.Faultf(400, "Bad parameter")
		}
		return nil, nil
	}})
}

// settings is a flexicli.Store with one setting.
type settings struct{}

func (settings) Sections() []flexicli.Section {
	return []flexicli.Section{{Name: "global", Settings: []flexicli.Setting{{Name: "log-level", Value: "error"}}}}
}

func (settings) Set(_ context.Context, peer rpc.Peer, _, _ string) error {
	if peer.UID != os.Getuid() {
		return fmt.Errorf("peer %v", peer)
	}
	return nil
}

// recording is what a program sent and got, and what it printed.
type recording struct {
	Name      string     `json:"name"`
	Command   string     `json:"command"`
	Stdin     string     `json:"stdin"`
	Stdout    string     `json:"stdout"`
	Stderr    string     `json:"stderr"`
	Exit      any        `json:"exit"`
	Request   string     `json:"request_hex"`
	Reply     string     `json:"reply_hex"`
	Exchanges []exchange `json:"exchanges"`
	Closed    bool       `json:"closed"`
}

type exchange struct {
	Request string `json:"request_hex"`
	Reply   string `json:"reply_hex"`
}

// recordings are those whose names begin with one of the prefixes.
func recordings(t *testing.T, least int, prefixes ...string) []recording {
	t.Helper()
	text, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	var all, out []recording
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		for _, p := range prefixes {
			if strings.HasPrefix(r.Name, p) {
				out = append(out, r)
				break
			}
		}
	}
	if len(out) < least {
		t.Fatalf("%d recordings, want %d at least", len(out), least)
	}
	return out
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// playback is a registry whose methods answer as the recorded server did.
func playback(t *testing.T, r recording) *rpc.Registry {
	t.Helper()
	type result struct {
		v     any
		fault *rpc.Fault
	}
	answers := map[string]result{}
	methods := map[string]rpc.Handler{}
	handler := func(_ context.Context, c *rpc.Call) (any, error) {
		a, ok := answers[fmt.Sprint(c.Method, c.Params)]
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: not recorded with %v", c.Method, c.Params)
		case a.fault != nil:
			return nil, a.fault
		}
		return a.v, nil
	}
	methods["siptrace.status"] = handler
	add := func(method string, params []any, v any, fault *rpc.Fault) {
		if fault != nil && (fault.Text == "Method Not Found" || fault.Text == "command "+method+" not found") {
			delete(methods, method)
			return
		}
		answers[fmt.Sprint(method, params)] = result{v, fault}
		names := rpc.List{method}
		if list, ok := v.(rpc.List); ok && method == "system.listMethods" {
			names = list
		}
		for _, n := range names {
			if name := n.(string); name != "" && !strings.HasPrefix(name, "system.") {
				methods[name] = handler
			}
		}
	}
	for _, e := range append(r.Exchanges, exchange{r.Request, r.Reply}) {
		request, reply := unhex(t, e.Request), unhex(t, e.Reply)
		if i := strings.Index(string(request), "\r\n\r\n"); i >= 0 { // HTTP
			request = request[i+4:]
		}
		if i := strings.Index(string(reply), "\r\n\r\n"); i >= 0 {
			reply = reply[i+4:]
		}
		var q binrpc.Request
		var p binrpc.Reply
		if q.Decode(request) == nil && p.Decode(reply) == nil {
			add(q.Method, q.Params, p.Value, p.Fault)
			continue
		}
		var j jsonrpc.Reply
		if q, err := (jsonrpc.Server{}).Parse(request); err == nil && j.Decode(reply) == nil {
			add(q.Method, q.Params, j.Value, j.Fault)
		}
	}
	return register(t, methods)
}
