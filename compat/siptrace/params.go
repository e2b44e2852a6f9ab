package siptrace

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Params are the module's parameters, by the names of its documentation
// ("Parameters" of the SIPtrace module's admin guide) and of its code.
type Params struct {
	DBURL                string   // db_url
	Table                string   // table
	TraceFlag            int      // trace_flag; -1 unset. Script flags are not visible outside the proxy
	TraceOn              bool     // trace_on
	TracedUserAVP        string   // traced_user_avp; an integer id in OpenSER
	TraceTableAVP        string   // trace_table_avp
	DuplicateURI         []string // duplicate_uri
	TraceToDatabase      bool     // trace_to_database
	TraceLocalIP         string   // trace_local_ip
	TraceSLAcks          bool     // trace_sl_acks
	XHeadersWrite        bool     // xheaders_write
	XHeadersRead         bool     // xheaders_read
	HEPModeOn            bool     // hep_mode_on
	HEPVersion           int      // hep_version
	HEPCaptureID         uint32   // hep_capture_id
	TraceDBMode          int      // trace_db_mode
	TraceDelayed         bool     // trace_delayed
	SendSockName         string   // send_sock_name
	SendSockAddr         string   // send_sock_addr, force_send_sock
	TraceInitMode        int      // trace_init_mode
	TraceMode            int      // trace_mode
	DataMode             int      // data_mode
	AuthKey              string   // auth_key
	EvcbMsg              string   // evcb_msg
	TraceDialogAck       bool     // trace_dialog_ack
	TraceDialogSpiral    bool     // trace_dialog_spiral
	TraceEphemeralSocket bool     // trace_ephemeral_socket
	Columns              Columns  // *_column
}

// Bits of trace_mode.
const (
	ModeHEP      = 1 // mirror all traffic as HEP
	ModeDatabase = 2 // store all traffic
	ModeSIP      = 4 // mirror all traffic as SIP
)

// dataAdvertised is the bit of data_mode that asks for advertised addresses.
const dataAdvertised = 1

// Kind is the type that a parameter has in modparam().
type Kind string

// The kinds of a parameter.
const (
	Int       Kind = "integer"
	Str       Kind = "string"
	IntOrStr  Kind = "integer or string" // where documentation and code disagree
	StrOrList Kind = "string or list"    // a list in YAML
)

// Spec describes one parameter.
type Spec struct {
	Name    string
	Kind    Kind
	Default any // string, int64 or nil (unset)
	// Secret values are not printed.
	Secret bool
	// Doc is what the parameter does, in one line of Markdown.
	Doc string
	// Note says what a sidecar makes of the parameter where that differs from
	// the module; empty: the same.
	Note string
	// Restart says why a change needs a restart; empty: it takes effect while the
	// process runs.
	Restart string
	// Moves says what becomes of the parameter in the proxy when storing and
	// mirroring move out of it.
	Moves Move

	get func(*Params) any
	set func(*Params, any) error // gets the type that kind says
}

// Live reports whether a change takes effect while the process runs.
func (s Spec) Live() bool { return s.Restart == "" }

// Move is what becomes of a parameter of the proxy when the module's work moves
// to a sidecar.
type Move string

// The moves.
const (
	// Changes: the proxy needs another value, to mirror to the sidecar.
	Changes Move = ""
	// Leaves: a proxy that neither stores nor mirrors on has no use for it.
	Leaves Move = "leaves"
	// Stays: it works on in the proxy, and has its default in the sidecar.
	Stays Move = "stays"
	// Both: it has the same value in both.
	Both Move = "both"
)

// Reasons for a restart.
const (
	oneTable  = "the rows of one run belong to one table"
	spoolSync = "it sets how often the spool is synced, which is fixed when the spool is opened"
)

// Specs lists every parameter, in the order of the documentation.
func Specs() []Spec { return specs[:] }

var specs = [...]Spec{
	{
		Name: "db_url", Kind: Str, Default: "mysql://kamailio:kamailiorw@localhost/kamailio", Secret: true, Moves: Leaves,
		Doc: "database of the rows: `mysql://`, `postgres://` or `sqlite://`; several hosts with commas are tried in their order, and one that is read-only is passed over. Another one takes effect at once: the writers connect again",
		get: func(p *Params) any { return p.DBURL },
		set: func(p *Params, v any) error {
			p.DBURL = v.(string)
			_, err := ParseDBURL(p.DBURL)
			return err
		},
	},
	{
		Name: "table", Kind: Str, Default: "sip_trace", Moves: Leaves, Restart: oneTable,
		Doc: "table of the rows",
		get: func(p *Params) any { return p.Table },
		set: identifier(func(p *Params) *string { return &p.Table }),
	},
	{
		Name: "trace_flag", Kind: Int, Default: int64(-1), Note: "script flags are not visible outside the proxy: use a rule", Moves: Stays,
		Doc: "accepted; script flags are not visible outside the proxy: use a rule",
		get: func(p *Params) any { return int64(p.TraceFlag) },
		set: inRange(-1, 31, func(p *Params, n int64) { p.TraceFlag = int(n) }),
	},
	onOff("trace_on", 0, Changes, "tracing is on; `siptrace.status` switches it", func(p *Params) *bool { return &p.TraceOn }),
	{
		Name: "traced_user_avp", Kind: IntOrStr, Default: nil, Note: "set by the event route or by a rule", Moves: Both,
		Doc: "AVP of `traced_user`, set by the event route or by a rule: N+1 rows with `trace_on`, the first without a user, then the last value first; N without. In `trace_mode` as well, where the module never asks for it. A number is an AVP of OpenSER",
		get: func(p *Params) any { return p.TracedUserAVP },
		set: avp(func(p *Params) *string { return &p.TracedUserAVP }),
	},
	{
		Name: "trace_table_avp", Kind: Str, Default: nil, Note: "set by the event route or by a rule", Moves: Leaves,
		Doc: "AVP of the table, set by the event route or by a rule: only tables that `rules.tables` allows, that exist and have the columns; rows for others go into `table` (`rules.table_refused`, `store.table_fallback`)",
		get: func(p *Params) any { return p.TraceTableAVP },
		set: avp(func(p *Params) *string { return &p.TraceTableAVP }),
	},
	{
		Name: "duplicate_uri", Kind: StrOrList, Default: nil,
		Doc: "where everything that is traced is mirrored to: `sip:host:port;transport=udp`, or `tcp`, `tls`; a list in YAML",
		get: func(p *Params) any { return strings.Join(p.DuplicateURI, ",") },
		set: func(p *Params, v any) error {
			uris := v.([]string)
			for _, u := range uris {
				if _, err := ParseMirrorURI([]byte(u)); err != nil {
					return err
				}
			}
			p.DuplicateURI = uris
			return nil
		},
	},
	onOff("trace_to_database", 1, Changes, "rows are written", func(p *Params) *bool { return &p.TraceToDatabase }),
	{
		Name: "trace_local_ip", Kind: Str, Default: nil, Note: "without effect when trace_mode is set, as in the module", Moves: Leaves,
		Doc: "stands for the proxy's own end; without effect while `trace_mode` is set, as in the module; without a transport it gets `udp:`",
		get: func(p *Params) any { return p.TraceLocalIP },
		set: func(p *Params, v any) error { p.TraceLocalIP = v.(string); return nil },
	},
	onOff("trace_sl_acks", 1, Stays, "0: the ACK for a negative reply that the proxy made itself, without a transaction, is dropped", func(p *Params) *bool { return &p.TraceSLAcks }),
	onOff("xheaders_write", 0, Leaves, "SIP mirrors get the five `X-Siptrace` headers", func(p *Params) *bool { return &p.XHeadersWrite }),
	onOff("xheaders_read", 0, Leaves, "SIP duplicates are read by their `X-Siptrace` headers, and dropped without them", func(p *Params) *bool { return &p.XHeadersRead }),
	onOff("hep_mode_on", 0, Changes, "mirrors get HEP in place of SIP", func(p *Params) *bool { return &p.HEPModeOn }),
	{
		Name: "hep_version", Kind: Int, Default: int64(1),
		Doc: "of HEP to mirrors: 1, 2 or 3",
		get: func(p *Params) any { return int64(p.HEPVersion) },
		set: inRange(1, 3, func(p *Params, n int64) { p.HEPVersion = int(n) }),
	},
	{
		Name: "hep_capture_id", Kind: Int, Default: int64(1), Moves: Both,
		Doc: "capture id in HEP to mirrors",
		get: func(p *Params) any { return int64(p.HEPCaptureID) },
		set: inRange(0, math.MaxUint32, func(p *Params, n int64) { p.HEPCaptureID = uint32(n) }),
	},
	{
		Name: "trace_db_mode", Kind: Int, Default: int64(0), Note: "rows are always queued and written in batches", Moves: Leaves, Restart: spoolSync,
		Doc: "rows are always queued and written in batches; the value chooses between safety and load: 0: spool synced every 100 ms, rows gather for 5 ms; 1 (INSERT DELAYED): 10 s and 1 s; 2 (asynchronous): 1 s and 200 ms. `spool.sync_interval` and `store.batch_age` win",
		get: func(p *Params) any { return int64(p.TraceDBMode) },
		set: inRange(0, 2, func(p *Params, n int64) { p.TraceDBMode = int(n) }),
	},
	{
		Name: "trace_delayed", Kind: Int, Default: int64(0), Note: "non-zero is trace_db_mode 1", Moves: Leaves, Restart: spoolSync,
		Doc: "non-zero is `trace_db_mode` 1",
		get: func(p *Params) any { return boolInt(p.TraceDelayed) },
		set: func(p *Params, v any) error {
			if p.TraceDelayed = v.(int64) != 0; p.TraceDelayed {
				p.TraceDBMode = 1
			}
			return nil
		},
	},
	text("send_sock_name", Leaves, "`listen=` line whose address mirrors are sent from; its port is left to the proxy", func(p *Params) *string { return &p.SendSockName }),
	{
		Name: "send_sock_addr", Kind: Str, Default: nil, Moves: Leaves,
		Doc: "address that mirrors are sent from; the proxy's own port is left to it",
		get: func(p *Params) any { return p.SendSockAddr },
		set: func(p *Params, v any) error { p.SendSockAddr = v.(string); return CheckSIPURI(p.SendSockAddr) },
	},
	{
		Name: "force_send_sock", Kind: Str, Default: nil, Note: "the old name of send_sock_addr", Moves: Leaves,
		Doc: "the old name of `send_sock_addr`",
		get: func(p *Params) any { return p.SendSockAddr },
		set: func(p *Params, v any) error { p.SendSockAddr = v.(string); return CheckSIPURI(p.SendSockAddr) },
	},
	{
		Name: "trace_init_mode", Kind: Int, Default: int64(0), Moves: Stays,
		Doc: "1: rules and `sip_trace()` have no effect; 2: what no rule, `sip_trace()` or AVP of users chose is dropped",
		get: func(p *Params) any { return int64(p.TraceInitMode) },
		set: inRange(0, 2, func(p *Params, n int64) { p.TraceInitMode = int(n) }),
	},
	{
		Name: "trace_mode", Kind: Int, Default: int64(0),
		Doc: "what happens to all traffic: 1 HEP mirror, 2 rows, 4 SIP mirror, added up",
		get: func(p *Params) any { return int64(p.TraceMode) },
		set: inRange(0, 7, func(p *Params, n int64) { p.TraceMode = int(n) }),
	},
	{
		Name: "data_mode", Kind: Int, Default: int64(0), Moves: Leaves,
		Doc: "1: the advertised addresses of the proxy's sockets stand in the rows",
		get: func(p *Params) any { return int64(p.DataMode) },
		set: inRange(0, math.MaxInt32, func(p *Params, n int64) { p.DataMode = int(n) }),
	},
	{
		Name: "auth_key", Kind: IntOrStr, Default: nil, Secret: true, Moves: Both,
		Doc: "authentication key in HEP3 to mirrors",
		get: func(p *Params) any { return p.AuthKey },
		set: func(p *Params, v any) error { p.AuthKey = v.(string); return nil },
	},
	text("evcb_msg", Stays, "name of another `event_route[...]`, in the file of `event_route` or in `kamailio.cfg`; a KEMI function can't run here and is refused: `siptraced migrate` leaves it in the proxy, an empty value goes without it", func(p *Params) *string { return &p.EvcbMsg }),
	onOff("trace_dialog_ack", 1, Stays, "0: a dialog that is traced goes without its ACK for a 2xx", func(p *Params) *bool { return &p.TraceDialogAck }),
	onOff("trace_dialog_spiral", 1, Stays, "0: a dialog that is traced goes without its second way through the proxy", func(p *Params) *bool { return &p.TraceDialogSpiral }),
	onOff("trace_ephemeral_socket", 0, Stays, "1: the proxy reports the port that a TCP or TLS connection has of its own, and the rows have it too; the direction is found by the address then", func(p *Params) *bool { return &p.TraceEphemeralSocket }),
	column("date_column", func(c *Columns) *string { return &c.Date }),
	column("callid_column", func(c *Columns) *string { return &c.CallID }),
	column("traced_user_column", func(c *Columns) *string { return &c.TracedUser }),
	column("msg_column", func(c *Columns) *string { return &c.Msg }),
	column("method_column", func(c *Columns) *string { return &c.Method }),
	column("status_column", func(c *Columns) *string { return &c.Status }),
	column("fromip_column", func(c *Columns) *string { return &c.FromIP }),
	column("toip_column", func(c *Columns) *string { return &c.ToIP }),
	column("fromtag_column", func(c *Columns) *string { return &c.FromTag }),
	column("totag_column", func(c *Columns) *string { return &c.ToTag }),
	column("direction_column", func(c *Columns) *string { return &c.Direction }),
}

// onOff is an integer parameter of which only zero or not zero matters. The
// documentation calls some of them strings: both are taken.
func onOff(name string, def int64, moves Move, doc string, field func(*Params) *bool) Spec {
	kind := Int
	if strings.HasPrefix(name, "trace_dialog_") {
		kind = IntOrStr
	}
	return Spec{
		Name: name, Kind: kind, Default: def, Moves: moves, Doc: doc,
		get: func(p *Params) any { return boolInt(*field(p)) },
		set: func(p *Params, v any) error {
			if s, ok := v.(string); ok {
				n, err := strconv.ParseInt(s, 0, 64)
				if err != nil {
					return fmt.Errorf("%q is not a number", s)
				}
				v = n
			}
			*field(p) = v.(int64) != 0
			return nil
		},
	}
}

func text(name string, moves Move, doc string, field func(*Params) *string) Spec {
	return Spec{
		Name: name, Kind: Str, Moves: moves, Doc: doc,
		get: func(p *Params) any { return *field(p) },
		set: func(p *Params, v any) error { *field(p) = v.(string); return nil },
	}
}

func column(name string, field func(*Columns) *string) Spec {
	d := DefaultColumns()
	return Spec{
		Name: name, Kind: Str, Default: *field(&d), Moves: Leaves, Restart: oneTable, Doc: "name of the column `" + *field(&d) + "`",
		get: func(p *Params) any { return *field(&p.Columns) },
		set: identifier(func(p *Params) *string { return field(&p.Columns) }),
	}
}

func inRange(lo, hi int64, set func(*Params, int64)) func(*Params, any) error {
	return func(p *Params, v any) error {
		n := v.(int64)
		if n < lo || n > hi {
			return fmt.Errorf("%d is out of range: %d to %d", n, lo, hi)
		}
		set(p, n)
		return nil
	}
}

// MaxIdentifier is the length that table and column names may have: 64
// characters in MySQL, 63 bytes in PostgreSQL.
const MaxIdentifier = 63

var identifierRE = regexp.MustCompile(`^[A-Za-z0-9_$][A-Za-z0-9_$-]*$`)

// CheckIdentifier refuses table and column names that only quoting could save.
func CheckIdentifier(s string) error {
	switch {
	case s == "":
		return errors.New("the name is empty")
	case len(s) > MaxIdentifier:
		return fmt.Errorf("%.20q... has %d characters, at most %d are possible", s, len(s), MaxIdentifier)
	case !identifierRE.MatchString(s):
		return fmt.Errorf("%q: a name has letters, digits, '_', '$' and '-' only", s)
	}
	return nil
}

func identifier(field func(*Params) *string) func(*Params, any) error {
	return func(p *Params, v any) error {
		*field(p) = v.(string)
		return CheckIdentifier(*field(p))
	}
}

var avpRE = regexp.MustCompile(`^(\$avp\([^()]+\)|\$[A-Za-z_][A-Za-z0-9_]*|[0-9]+)$`)

func avp(field func(*Params) *string) func(*Params, any) error {
	return func(p *Params, v any) error {
		*field(p) = v.(string)
		if !avpRE.MatchString(*field(p)) {
			return fmt.Errorf("%q is not an AVP: want $avp(name), such as $avp(s:user)", *field(p))
		}
		return nil
	}
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// DefaultParams are the module's own defaults.
func DefaultParams() Params {
	p := Params{TraceFlag: -1, Columns: DefaultColumns()}
	for _, s := range specs {
		if s.Default != nil {
			if err := s.set(&p, s.Default); err != nil {
				panic("siptrace: default of " + s.Name + ": " + err.Error())
			}
		}
	}
	return p
}

// UnknownParamError is a parameter that the module does not have.
type UnknownParamError struct{ Name string }

func (e *UnknownParamError) Error() string {
	return fmt.Sprintf("siptrace has no parameter %q", e.Name)
}

// ParamError is a value that a parameter does not take.
type ParamError struct {
	Name string
	Want Kind
	Err  error
}

func (e *ParamError) Error() string { return e.Name + " (" + string(e.Want) + "): " + e.Err.Error() }

// Unwrap gives what is wrong with the value.
func (e *ParamError) Unwrap() error { return e.Err }

// Lookup finds the description of a parameter.
func Lookup(name string) (Spec, error) {
	for _, s := range specs {
		if s.Name == name {
			return s, nil
		}
	}
	return Spec{}, &UnknownParamError{Name: name}
}

// Names lists the names of all parameters.
func Names() []string {
	n := make([]string, len(specs))
	for i, s := range specs {
		n[i] = s.Name
	}
	return n
}

// Set sets one parameter. Integers come as int64 or int, lists as []string or
// []any of strings; modparam() is strict about the type, and so is Set. The
// errors are *UnknownParamError and *ParamError.
func (p *Params) Set(name string, value any) error {
	s, err := Lookup(name)
	if err != nil {
		return err
	}
	v, err := s.convert(value)
	if err == nil {
		err = s.set(p, v)
	}
	if err != nil {
		return &ParamError{Name: name, Want: s.Kind, Err: err}
	}
	return nil
}

// SetText sets one parameter from text, as the command line and the
// environment have it. Lists are written with commas; an empty value unsets.
func (p *Params) SetText(name, value string) error {
	s, err := Lookup(name)
	if err != nil {
		return err
	}
	if value == "" {
		return p.unset(s)
	}
	var v any = value
	switch s.Kind {
	case Int:
		n, err := strconv.ParseInt(value, 0, 64)
		if err != nil {
			return &ParamError{Name: name, Want: s.Kind, Err: fmt.Errorf("%q is not a number", value)}
		}
		v = n
	case StrOrList:
		v = strings.Split(value, ",")
	}
	return p.Set(name, v)
}

func (p *Params) unset(s Spec) error {
	switch {
	case s.Default != nil:
		return s.set(p, s.Default)
	case s.Kind == StrOrList:
		return s.set(p, []string(nil))
	default:
		// The field is empty then, which no value that is set may be.
		_ = s.set(p, "")
		return nil
	}
}

func (s Spec) convert(value any) (any, error) {
	if n, ok := value.(int); ok {
		value = int64(n)
	}
	if b, ok := value.(bool); ok {
		value = boolInt(b)
	}
	switch v := value.(type) {
	case int64:
		switch {
		case s.Kind == Int:
			return v, nil
		case s.Kind == IntOrStr:
			if _, number := s.Default.(int64); number {
				return v, nil
			}
			return strconv.FormatInt(v, 10), nil
		}
		return nil, fmt.Errorf("the value is the number %d; put it in quotes if it is meant as text", v)
	case string:
		switch s.Kind {
		case Int:
			return nil, fmt.Errorf("the value %q is a string; write the number without quotes", v)
		case StrOrList:
			return []string{v}, nil
		}
		return v, nil
	case []string:
		if s.Kind == StrOrList {
			return v, nil
		}
	case []any:
		if s.Kind == StrOrList {
			list := make([]string, 0, len(v))
			for _, e := range v {
				t, ok := e.(string)
				if !ok {
					return nil, fmt.Errorf("list entry %v is not a string", e)
				}
				list = append(list, t)
			}
			return list, nil
		}
	}
	return nil, fmt.Errorf("a value of type %T does not fit", value)
}

// Value is the parameter's present value: a string or an int64.
func (s Spec) Value(p *Params) any { return s.get(p) }

// Validate checks what single values can't show.
func (p *Params) Validate() error {
	if p.TraceInitMode == 1 && p.TraceMode == 0 {
		return errors.New("trace_init_mode 1 (all traffic only) with trace_mode 0 would trace nothing: set trace_mode, or trace_init_mode to 0")
	}
	return nil
}

// Stores reports whether messages go to the database.
func (p *Params) Stores() bool { return p.TraceToDatabase || p.TraceMode&ModeDatabase != 0 }

// Sinks are those of a message that is traced. destination says that a mirror is
// known for it: one that a rule named, or one of duplicate_uri. Where trace_mode
// says how to mirror, hep_mode_on is not asked.
func (p *Params) Sinks(destination bool) (s Sinks) {
	if p.Stores() {
		s = ToStore
	}
	switch {
	case !destination:
	case p.TraceMode&(ModeHEP|ModeSIP) != 0:
		if p.TraceMode&ModeHEP != 0 {
			s |= ToHEP
		}
		if p.TraceMode&ModeSIP != 0 {
			s |= ToSIP
		}
	case p.HEPModeOn:
		s |= ToHEP
	default:
		s |= ToSIP
	}
	return s
}

// AdvertisedData reports whether data_mode asks for the advertised address of
// a socket in place of its bound one.
func (p *Params) AdvertisedData() bool { return p.DataMode&dataAdvertised != 0 }

// LocalIP is the text that stands for the proxy's own end, or empty.
// trace_local_ip has no effect on traffic that trace_mode mirrors; a value
// without a transport gets udp, which the module lacks and then writes a
// broken address.
func (p *Params) LocalIP() string {
	if p.TraceMode != 0 || p.TraceLocalIP == "" {
		return ""
	}
	if name, _, ok := strings.Cut(p.TraceLocalIP, ":"); ok {
		if _, known := ParseProto(name); known {
			return p.TraceLocalIP
		}
	}
	return string(UDP) + ":" + p.TraceLocalIP
}
