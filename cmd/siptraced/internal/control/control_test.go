package control

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"siptraced/rpc"
)

// fake is a daemon with one counter of each group and two settings.
type fake struct {
	settings map[string]any
	counters map[string]uint64
}

func newFake() *fake {
	return &fake{
		settings: map[string]any{TraceOn: int64(1), "log.level": "info"},
		counters: map[string]uint64{"traced_requests": 3, "traced_replies": 5, "received": 9, "store.pending": 1, "store.written": 8},
	}
}

func (f *fake) Setting(name string) (any, bool) { v, ok := f.settings[name]; return v, ok }
func (f *fake) Settings() []string              { return []string{"log.level", TraceOn} }
func (f *fake) Counters() map[string]uint64     { return f.counters }
func (f *fake) Sockets() []Socket {
	return []Socket{{"udp", netip.MustParseAddrPort("127.0.0.1:9060")}, {"tcp", netip.MustParseAddrPort("[::1]:9060")}}
}
func (f *fake) Sources() []Source        { return nil }
func (f *fake) Sinks() []string          { return []string{"store"} }
func (f *fake) IsGauge(name string) bool { return name == "store.pending" }
func (f *fake) Sink(string) Sink {
	return Sink{LastError: "refused", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local), WaitingBytes: 70, ByRules: true}
}

func (f *fake) Spool() Spool {
	return Spool{
		Place: "dir", Bytes: 5, MaxBytes: 10, SharePercent: 50, OldestSeconds: 7, UnsyncedRows: 11, UnsyncedSeconds: 1, Uncertain: 12, DiskFree: 9, HasDisk: true,
		Elsewhere: []Elsewhere{{Sink: "mirror.m", Pending: 13, WaitingBytes: 14, Moved: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)}},
	}
}
func (f *fake) Reload() ([]string, error) { return []string{"log.level: info -> debug"}, nil }

func (f *fake) Set(name string, value any) (any, error) {
	if value == "wrong" {
		return nil, errors.New("wrong value")
	}
	old := f.settings[name]
	f.settings[name] = value
	return old, nil
}

func registries(t *testing.T, f *fake) (methods, mi *rpc.Registry, changes *[]rpc.Change) {
	t.Helper()
	changes = new([]rpc.Change)
	c := New(f, func(_ context.Context, ch rpc.Change) { *changes = append(*changes, ch) })
	methods, mi = rpc.NewRegistry(), rpc.NewRegistry()
	if err := errors.Join(c.Register(methods), c.RegisterMI(mi)); err != nil {
		t.Fatal(err)
	}
	return methods, mi, changes
}

func call(r *rpc.Registry, method string, params ...any) (any, string) {
	v, err := r.Call(context.Background(), &rpc.Call{Method: method, Params: params, Peer: rpc.NewPeer("test", "")})
	if err != nil {
		return nil, err.Error()
	}
	return v, ""
}

// The table of the module's own answers: the word is taken by its beginning, in
// any letter case, and what is no string is missing.
func TestStatus(t *testing.T) {
	const bad, missing = "500 Bad parameter (on, off or check)", "500 Not enough parameters (on, off or check)"
	tests := []struct {
		param any
		want  any
		fault string
		on    any // afterwards; tracing begins switched on
	}{
		{"on", "Enabled", "", int64(1)},
		{"ON", "Enabled", "", int64(1)},
		{"onx", "Enabled", "", int64(1)},
		{"off", "Disabled", "", int64(0)},
		{"OFF", "Disabled", "", int64(0)},
		{"offhook", "Disabled", "", int64(0)},
		{"check", "Enabled", "", int64(1)},
		{"check ", "Enabled", "", int64(1)},
		{" on", nil, bad, int64(1)},
		{"bogus", nil, bad, int64(1)},
		{"", nil, bad, int64(1)},
		{int64(1), nil, missing, int64(1)},
		{1.5, nil, missing, int64(1)},
		{true, nil, missing, int64(1)},
		{rpc.List{"on"}, nil, missing, int64(1)},
	}
	for _, tt := range tests {
		f := newFake()
		r, _, changes := registries(t, f)
		v, fault := call(r, "siptrace.status", tt.param)
		if v != tt.want || fault != tt.fault || f.settings[TraceOn] != tt.on {
			t.Errorf("%v: got %v, %q, trace_on %v; want %v, %q, %v", tt.param, v, fault, f.settings[TraceOn], tt.want, tt.fault, tt.on)
		}
		if changed := tt.on == int64(0); changed != (len(*changes) == 1) {
			t.Errorf("%v: told of changes %v", tt.param, *changes)
		}
	}
	r, _, _ := registries(t, newFake())
	if _, fault := call(r, "siptrace.status"); fault != missing {
		t.Errorf("no parameter: got %q", fault)
	}
}

func TestMI(t *testing.T) {
	tests := []struct {
		params []any
		want   any
		fault  string
		on     any
	}{
		{nil, "on", "", int64(1)},
		{[]any{"off"}, nil, "", int64(0)},
		{[]any{"Off"}, nil, "", int64(0)},
		{[]any{"on"}, nil, "", int64(1)},
		{[]any{"onx"}, nil, "400 Bad parameter", int64(1)},
		{[]any{"check"}, nil, "400 Bad parameter", int64(1)},
	}
	for _, tt := range tests {
		f := newFake()
		_, mi, _ := registries(t, f)
		v, fault := call(mi, "sip_trace", tt.params...)
		if v != tt.want || fault != tt.fault || f.settings[TraceOn] != tt.on {
			t.Errorf("%v: got %v, %q, trace_on %v", tt.params, v, fault, f.settings[TraceOn])
		}
	}
}

func TestStatistics(t *testing.T) {
	r, mi, _ := registries(t, newFake())
	two := rpc.List{"siptrace:traced_replies = 5", "siptrace:traced_requests = 3"}
	tests := []struct {
		r      *rpc.Registry
		method string
		params []any
		want   any
		fault  string
	}{
		{r, "stats.get_statistics", []any{"siptrace:"}, two, ""},
		{r, "stats.get_statistics", []any{"traced_requests"}, rpc.List{"siptrace:traced_requests = 3"}, ""},
		{r, "stats.get_statistics", []any{"received"}, rpc.List{"siptraced:received = 9"}, ""},
		{r, "stats.get_statistics", []any{"nogroup:"}, rpc.List{}, ""},
		{r, "stats.get_statistics", nil, nil, "400 Please provide which stats to retrieve"},
		{r, "stats.fetch", []any{"siptrace:"}, rpc.Struct{{Name: "siptrace.traced_replies", Value: "5"}, {Name: "siptrace.traced_requests", Value: "3"}}, ""},
		{r, "stats.fetchn", []any{"siptrace:"}, rpc.Struct{{Name: "siptrace.traced_replies", Value: 5.0}, {Name: "siptrace.traced_requests", Value: 3.0}}, ""},
		{r, "stats.fetch", []any{"siptrace:traced_requests", "traced_replies"}, rpc.Struct{{Name: "siptrace.traced_requests", Value: "3"}, {Name: "siptrace.traced_replies", Value: "5"}}, ""},
		{r, "stats.fetchn", []any{"siptraced.store.pending", "siptraced:received", "store.written"}, rpc.Struct{{Name: "siptraced.store.pending", Value: 1.0}, {Name: "siptraced.received", Value: 9.0}, {Name: "siptraced.store.written", Value: 8.0}}, ""},
		{r, "stats.fetch", []any{"siptraced.traced_requests"}, rpc.Struct{{Name: "siptraced.traced_requests", Value: "3"}}, ""},
		{r, "stats.fetch", []any{"siptrace:received", "received:", ":received", "traced_requests", 1, "traced_replies"}, rpc.Struct{{Name: "siptrace.traced_requests", Value: "3"}}, ""},
		{r, "stats.fetch", []any{1}, nil, "400 Please provide which stats to retrieve"},
		{r, "stats.get_statistics", []any{"siptrace:traced_requests", "traced_replies"}, two[:1], ""},
		{r, "stats.clear_statistics", []any{"siptrace:traced_requests"}, rpc.Records{}, ""},
		{r, "stats.reset_statistics", []any{"siptrace:traced_requests"}, nil, ""},
		{mi, "get_statistics", []any{"siptrace:"}, rpc.List{two[1], two[0]}, ""},
		{r, "cnt.get", []any{"siptrace", "traced_requests"}, int64(3), ""},
		{r, "cnt.get", []any{"siptrace", "nosuch"}, nil, "400 non-existent counter siptrace.nosuch\n"},
		{r, "cnt.get", nil, nil, "400 Not enough parameters (group and name)"},
		{r, "cnt.get", []any{"siptrace"}, rpc.Struct{{Name: "traced_replies", Value: int64(5)}, {Name: "traced_requests", Value: int64(3)}}, ""},
		{r, "stats.reset_statistics", nil, nil, "400 Please provide stats name"},
		{r, "stats.reset_statistics", []any{"received", 1, "store.pending"}, nil, "400 Parameter 2 is not a string"},
		{r, "stats.get_statistics", []any{"received", "store.pending"}, rpc.List{"siptraced:received = 0", "siptraced:store.pending = 1"}, ""},
		{r, "cnt.grps_list", nil, rpc.List{"siptrace", "siptraced"}, ""},
		{r, "cnt.var_list", []any{"siptrace"}, rpc.List{"traced_replies", "traced_requests"}, ""},
		{r, "cnt.grp_get_all", []any{"siptrace"}, rpc.Struct{{Name: "traced_replies", Value: int64(5)}, {Name: "traced_requests", Value: int64(3)}}, ""},
		{r, "stats.reset_statistics", []any{"traced_requests"}, nil, ""},
		{r, "stats.get_statistics", []any{"traced_requests"}, rpc.List{"siptrace:traced_requests = 0"}, ""},
		{r, "stats.clear_statistics", []any{"traced_replies"}, rpc.Records{"siptrace:traced_replies = 5"}, ""},
		{r, "cnt.get", []any{"siptrace", "traced_replies"}, int64(0), ""},
	}
	for _, tt := range tests {
		v, fault := call(tt.r, tt.method, tt.params...)
		if !reflect.DeepEqual(v, tt.want) || fault != tt.fault {
			t.Errorf("%s %v: got %v, %q, want %v, %q", tt.method, tt.params, v, fault, tt.want, tt.fault)
		}
	}
}

func TestSettings(t *testing.T) {
	f := newFake()
	r, _, changes := registries(t, f)
	tests := []struct {
		method string
		params []any
		want   any
		fault  string
	}{
		{"cfg.list", nil, rpc.List{"siptraced: log.level", "siptrace: trace_on"}, ""},
		{"cfg.list", []any{"siptrace"}, rpc.List{"siptrace: trace_on"}, ""},
		{"cfg.get", []any{"siptrace", "trace_on"}, int64(1), ""},
		{"cfg.seti", []any{"siptrace", "trace_on", int64(0)}, nil, ""},
		{"cfg.get", []any{"siptrace", "trace_on"}, int64(0), ""},
		{"cfg.sets", []any{"siptraced", "log.level", "wrong"}, nil, "400 wrong value"},
		{"cfg.sets", []any{"siptraced", "log.level"}, nil, "400 Not enough parameters (group, name and value)"},
		{"cfg.get", []any{"siptrace", "db_url"}, nil, "400 no setting siptrace: db_url can change at run time (see cfg.list)"},
		{"siptrace.reload", nil, rpc.List{"log.level: info -> debug"}, ""},
	}
	for _, tt := range tests {
		v, fault := call(r, tt.method, tt.params...)
		if !reflect.DeepEqual(v, tt.want) || fault != tt.fault {
			t.Errorf("%s %v: got %v, %q, want %v, %q", tt.method, tt.params, v, fault, tt.want, tt.fault)
		}
	}
	if len(*changes) != 1 || (*changes)[0].What != TraceOn || (*changes)[0].Old != int64(1) || (*changes)[0].New != int64(0) {
		t.Errorf("changes: got %+v", *changes)
	}
}

// With a Kamailio behind us, groups that are not ours and what describes the
// process are answered there.
func TestForwarding(t *testing.T) {
	f := newFake()
	c := New(f, func(context.Context, rpc.Change) {})
	r := rpc.NewRegistry()
	r.Unknown = func(_ context.Context, call *rpc.Call) (any, bool, error) { return "there: " + call.Method, true, nil }
	if err := c.Register(r); err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]any{"core.info": "there: core.info", "tm.stats": "there: tm.stats"} {
		if v, fault := call(r, method); v != want {
			t.Errorf("%s: got %v, %q", method, v, fault)
		}
	}
	if v, fault := call(r, "cnt.get", "core", "x"); v != "there: cnt.get" {
		t.Errorf("cnt.get core x: got %v, %q", v, fault)
	}
	if v, fault := call(r, "cnt.get", "siptrace", "traced_requests"); v != int64(3) {
		t.Errorf("cnt.get siptrace traced_requests: got %v, %q", v, fault)
	}
}

// Each sink with its counters and how it does; the spool comes last. What is a
// value of the moment can't be reset.
func TestSinks(t *testing.T) {
	r, _, _ := registries(t, newFake())
	got, fault := call(r, "siptrace.sinks")
	want := rpc.List{
		rpc.Struct{
			{Name: "sink", Value: "store"},
			{Name: "pending", Value: int64(1)},
			{Name: "written", Value: int64(8)},
			{Name: "connected", Value: int64(0)},
			{Name: "last_error", Value: "refused"},
			{Name: "since", Value: "Fri Jan  2 03:04:05 2026"},
			{Name: "waiting_bytes", Value: int64(70)},
			{Name: "named_by", Value: "rules"},
		},
		rpc.Struct{
			{Name: "sink", Value: "mirror.m"},
			{Name: "elsewhere", Value: int64(1)},
			{Name: "pending", Value: int64(13)},
			{Name: "waiting_bytes", Value: int64(14)},
			{Name: "moved", Value: "Fri Jan  2 03:04:05 2026"},
		},
		rpc.Struct{
			{Name: "spool", Value: "dir"},
			{Name: "bytes", Value: int64(5)},
			{Name: "max_bytes", Value: int64(10)},
			{Name: "share_percent", Value: int64(50)},
			{Name: "oldest_seconds", Value: int64(7)},
			{Name: "unsynced_rows", Value: int64(11)},
			{Name: "unsynced_seconds", Value: int64(1)},
			{Name: "uncertain", Value: int64(12)},
			{Name: "full", Value: int64(0)},
			{Name: "disk_free_bytes", Value: int64(9)},
		},
	}
	if fault != "" || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v, %s\nwant %v", got, fault, want)
	}
	for name, want := range map[string]int64{"pending": 1, "written": 0} {
		if _, fault := call(r, "cnt.reset", "siptraced", "store."+name); fault != "" {
			t.Error(fault)
		}
		if got, _ := call(r, "cnt.get", "siptraced", "store."+name); got != want {
			t.Errorf("%s after a reset: %v, want %d", name, got, want)
		}
	}
}
