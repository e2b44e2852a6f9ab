package vectors

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	_ "time/tzdata" // a bare machine has no zone files
)

// Scenario is one recorded run.
type Scenario struct {
	Name      string
	Config    string // path of kamailio.cfg; of a chain, that of the second node
	Location  *time.Location
	Latin1    bool // the table's character set was latin1, not utf8mb4
	NonStrict bool // the server's sql_mode was empty
	Datagrams []Datagram
	Rows      []Row
	Inputs    []Input   // hand-made traffic only
	First     *Scenario // the first node of a chain, whose packets are the second one's input
}

// Datagram is one packet that the module sent to its collector.
type Datagram struct {
	N         int     // counted from 1
	Time      float64 // epoch seconds at which the collector got it
	Transport string  // udp or tcp
	Src, Dst  string  // ip:port
	Packet    []byte
}

// Input is one packet sent to the proxy by hand.
type Input struct {
	Datagram
	Label string
}

// Row is one row of the trace table, with the bytes of its columns as stored.
// The JSON names are those of the recordings.
type Row struct {
	ID         int64
	TimeStamp  string // 2006-01-02 15:04:05
	TimeUS     int64
	CallID     string
	TracedUser string
	Msg        string
	Method     string
	Status     string
	FromIP     string
	ToIP       string
	FromTag    string
	ToTag      string
	Direction  string
}

// Columns are the text columns of the table, in its order.
var Columns = [...]string{
	"callid", "traced_user", "msg", "method", "status", "fromip", "toip", "fromtag", "totag", "direction",
}

// Column returns the place of a text column, or nil if there is none of that name.
func (r *Row) Column(name string) *string {
	switch name {
	case "callid":
		return &r.CallID
	case "traced_user":
		return &r.TracedUser
	case "msg":
		return &r.Msg
	case "method":
		return &r.Method
	case "status":
		return &r.Status
	case "fromip":
		return &r.FromIP
	case "toip":
		return &r.ToIP
	case "fromtag":
		return &r.FromTag
	case "totag":
		return &r.ToTag
	case "direction":
		return &r.Direction
	}
	return nil
}

// Moment is the row's time, which the table has in local time.
func (r *Row) Moment(loc *time.Location) (time.Time, error) {
	t, err := time.ParseInLocation(time.DateTime, r.TimeStamp, loc)
	if err != nil {
		return time.Time{}, fmt.Errorf("vectors: time_stamp: %w", err)
	}
	if r.TimeUS < 0 || r.TimeUS > 999_999 {
		return time.Time{}, fmt.Errorf("vectors: time_us %d", r.TimeUS)
	}
	return t.Add(time.Duration(r.TimeUS) * time.Microsecond), nil
}

// UnmarshalJSON reads a row as recorded: each text column under its name when
// it is valid UTF-8, and under <name>_hex when it is not.
func (r *Row) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	get := func(key string, v any) error {
		raw, ok := m[key]
		if !ok {
			return fmt.Errorf("vectors: row without %s", key)
		}
		return json.Unmarshal(raw, v)
	}
	errs := []error{get("id", &r.ID), get("time_stamp", &r.TimeStamp), get("time_us", &r.TimeUS)}
	for _, c := range Columns {
		if _, ok := m[c+"_hex"]; !ok {
			errs = append(errs, get(c, r.Column(c)))
			continue
		}
		var h string
		errs = append(errs, get(c+"_hex", &h))
		v, err := hex.DecodeString(h)
		errs = append(errs, err)
		*r.Column(c) = string(v)
	}
	return errors.Join(errs...)
}

// UnmarshalJSON reads a packet as recorded, its bytes in hex.
func (d *Datagram) UnmarshalJSON(b []byte) error {
	var v struct {
		I         int
		T         float64
		Transport string
		Src, Dst  string
		Hex       string
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	p, err := hex.DecodeString(v.Hex)
	*d = Datagram{N: v.I, Time: v.T, Transport: v.Transport, Src: v.Src, Dst: v.Dst, Packet: p}
	return err
}

// UnmarshalJSON reads a packet and its label.
func (i *Input) UnmarshalJSON(b []byte) error {
	var v struct{ Label string }
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	i.Label = v.Label
	return i.Datagram.UnmarshalJSON(b)
}

// The few things about a run that its files do not say.
var (
	locations  = map[string]string{"hep3-tz-newyork": "America/New_York"}
	latin1     = []string{"edge-latin1-table"}
	notStrict  = []string{"edge-nonstrict"}
	noFeedWith = map[string]string{ // recordings that belong to other parts of the daemon, and why
		"event-route-drop":       "event_route[siptrace:msg] chooses the messages",
		"status-toggle-script":   "siptrace.status is switched by RPC during the run",
		"trace-table-avp":        "an AVP set by the script chooses the table",
		"traced-user-mode3":      "an AVP set by the script names the users",
		"traced-user-off":        "an AVP set by the script names the users",
		"traced-user-on":         "an AVP set by the script names the users",
		"sip-trace-msg-v614":     "packets made by sip_trace_msg() look like traced messages, but the function writes no rows",
		"xheaders-chain-hep":     "the rows have the time that X-Siptrace-Time had one node before",
		"xheaders-mode7-evroute": "HEP and SIP duplicates of the same messages arrive together",
	}
)

// Dir is the directory of the recordings.
func Dir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "tests", "vectors", "data"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("vectors: no go.mod at or above the working directory")
		}
		dir = up
	}
}

// Names lists all recordings.
func Names() ([]string, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// FromHEP loads the recordings whose rows, or whose lack of rows, follows from
// the HEP packets and kamailio.cfg alone.
func FromHEP() ([]*Scenario, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	var list []*Scenario
	for _, name := range names {
		if _, no := noFeedWith[name]; no {
			continue
		}
		s, err := Load(name)
		if err != nil {
			return nil, err
		}
		if s.allHEP() {
			list = append(list, s)
		}
	}
	return list, nil
}

func (s *Scenario) allHEP() bool {
	for _, d := range s.Datagrams {
		if _, err := decodeHEP(d.Packet); err != nil {
			return false
		}
	}
	return len(s.Datagrams) > 0
}

// Load reads one recording.
func Load(name string) (*Scenario, error) {
	root, err := Dir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name)
	s := &Scenario{
		Name:      name,
		Config:    filepath.Join(dir, "kamailio.cfg"),
		Location:  time.UTC,
		Latin1:    slices.Contains(latin1, name),
		NonStrict: slices.Contains(notStrict, name),
	}
	if zone, ok := locations[name]; ok {
		if s.Location, err = time.LoadLocation(zone); err != nil {
			return nil, err
		}
	}
	if s.Datagrams, err = readLines[Datagram](filepath.Join(dir, "datagrams.jsonl")); err != nil {
		return nil, err
	}
	if s.Rows, err = readLines[Row](filepath.Join(dir, "rows.jsonl")); err != nil {
		return nil, err
	}
	s.Inputs, err = readLines[Input](filepath.Join(dir, "input.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	second := filepath.Join(dir, "kamailio-b.cfg")
	if _, err := os.Stat(second); err == nil {
		first := *s
		s.First, s.Config = &first, second
		if first.Datagrams, err = readLines[Datagram](filepath.Join(dir, "datagrams-a.jsonl")); err != nil {
			return nil, err
		}
		if first.Rows, err = readLines[Row](filepath.Join(dir, "rows-a.jsonl")); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// label is the label of the hand-made packet that led to d: the last one sent
// before d came. Runs without hand-made traffic have none.
func (s *Scenario) label(d *Datagram) string {
	label := ""
	for _, in := range s.Inputs {
		if in.Time > d.Time {
			break
		}
		label = in.Label
	}
	return label
}

func (s *Scenario) matches(pattern string) bool {
	ok, err := path.Match(pattern, s.Name)
	return err == nil && ok
}

func readLines[T any](file string) ([]T, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []T
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		var v T
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		list = append(list, v)
	}
	return list, sc.Err()
}
