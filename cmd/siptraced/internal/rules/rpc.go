package rules

import (
	"context"
	"fmt"
	"strings"
	"time"

	"siptraced/compat/siptrace"
	"siptraced/rpc"
)

// Emitter takes records that were not received: a message of sip_trace_msg, a log
// line.
type Emitter interface {
	Emit(rec *siptrace.Record)
}

// Methods are the commands for rules. out takes the records of sip_trace_msg and
// hlog; changed is called with each change, and who made it.
func (e *Engine) Methods(out Emitter, changed func(context.Context, rpc.Change)) []rpc.Method {
	c := &commands{engine: e, out: out, changed: changed}
	list := []rpc.Method{
		{Name: "siptrace.trace.start", Help: "Start a rule. Parameters: filter=, scope=m|t|d, destination=, correlation_id=, users=, table=, limit=, id=, or the values in this order.", Handler: c.start},
		{Name: "siptrace.trace.list", Help: "The rules in force with their counters. Parameter: an id, or none.", Array: true, Handler: c.list},
		{Name: "siptrace.trace.stop", Help: "Stop a rule. Parameter: its id, or all.", Array: true, Handler: c.stop},
	}
	for _, m := range []rpc.Method{
		{Name: "sip_trace", Help: "Trace from now on. Parameters: [address [correlation_id [mode]]] [filter= and others of siptrace.trace.start].", Handler: c.kemi(0, "destination", "correlation_id", "scope")},
		{Name: "sip_trace_dst", Help: "Trace from now on to an address. Parameters: address [filter= ...].", Handler: c.kemi(1, "destination")},
		{Name: "sip_trace_dst_cid", Help: "Trace from now on to an address. Parameters: address correlation_id [filter= ...].", Handler: c.kemi(2, "destination", "correlation_id")},
		{Name: "sip_trace_dst_cid_type", Help: "Trace from now on to an address. Parameters: address correlation_id mode [filter= ...].", Handler: c.kemi(3, "destination", "correlation_id", "scope")},
		{Name: "sip_trace_mode", Help: "Trace from now on. Parameters: m|t|d [filter= ...].", Handler: c.kemi(1, "scope")},
		{Name: "sip_trace_msg", Help: "Send a text as a message to a collector by HEP. Parameters: text from to address correlation_id.", Handler: c.traceMsg},
		{Name: "hlog", Help: "Send a log line to the collector by HEP. Parameters: [correlation_id] text.", Handler: c.hlog},
		{Name: "hlog_cid", Help: "Send a log line to the collector by HEP. Parameters: correlation_id text.", Handler: c.hlog},
	} {
		// KSR.siptrace.hlog of KEMI, and what scripts call it.
		list = append(list, rpc.Method{Name: "siptrace." + m.Name, Help: m.Help, Handler: m.Handler}, rpc.Method{Name: m.Name, Help: "As siptrace." + m.Name + ".", Handler: m.Handler})
	}
	return list
}

// commands answers the methods.
type commands struct {
	engine  *Engine
	out     Emitter
	changed func(context.Context, rpc.Change)
}

// start is siptrace.trace.start: key=value words, an object with such members, or
// values in this order.
func (c *commands) start(ctx context.Context, call *rpc.Call) (any, error) {
	if len(call.Params) == 0 {
		return nil, rpc.Faultf(400, "%s", errNoWords)
	}
	return c.begin(ctx, call, []string{"filter", "scope", "destination", "correlation_id", "users", "table", "limit", "id"}, 0)
}

// kemi are the functions of the script. Out of it there is no message at hand:
// the rule holds for all that come from now on, or for those that a filter takes.
func (c *commands) kemi(least int, names ...string) rpc.Handler {
	return func(ctx context.Context, call *rpc.Call) (any, error) { return c.begin(ctx, call, names, least) }
}

// begin reads parameters, by position where names are given, and starts a rule.
func (c *commands) begin(ctx context.Context, call *rpc.Call, names []string, least int) (any, error) {
	now := time.Now()
	r := &Rule{Started: now, By: call.Peer.String()}
	set := func(key string, value any) error {
		if value == "" || value == int64(0) {
			return nil // not given, as in sip_trace("", ""); kamcmd makes 0 of ""
		}
		return r.set(key, value, now)
	}
	at := 0
	for i, p := range call.Params {
		var err error
		text, isText := p.(string)
		key, value, isWord := word(text)
		switch {
		case i < len(call.Names):
			err = set(call.Names[i], p)
		case isText && isWord:
			err = set(key, value)
		case at < len(names):
			err = set(names[at], p)
			at++
		default:
			members, ok := p.(rpc.Struct)
			if !ok {
				return nil, rpc.Faultf(400, "parameter %d: %s", i+1, errNoWords)
			}
			for _, m := range members {
				if err = set(m.Name, m.Value); err != nil {
					break
				}
			}
		}
		if err != nil {
			return nil, rpc.Faultf(400, "%s", err)
		}
	}
	if len(call.Names) == 0 && at < least {
		return nil, rpc.Faultf(400, "Not enough parameters (%s)", strings.Join(names, ", "))
	}
	if err := r.check(); err != nil {
		return nil, rpc.Faultf(400, "%s", err)
	}
	r, err := c.engine.Start(r)
	if err != nil {
		return nil, rpc.Faultf(400, "%s", err)
	}
	c.tell(ctx, call, r.ID, nil, r.String())
	return rpc.Struct{{Name: "id", Value: r.ID}}, nil
}

func (c *commands) tell(ctx context.Context, call *rpc.Call, id string, old, now any) {
	c.changed(ctx, rpc.Change{Method: call.Method, Peer: call.Peer, What: "rule " + id, Old: old, New: now})
}

// String is the rule as key=value words.
func (r *Rule) String() string {
	var b strings.Builder
	add := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s=%q", key, value)
		}
	}
	add("filter", r.Filter)
	add("scope", r.Scope)
	add("destination", strings.Join(r.Destinations, ","))
	add("correlation_id", r.CorrelationID)
	add("users", strings.Join(r.Users, ","))
	add("table", r.Table)
	if !r.Until.IsZero() {
		add("until", r.Until.Local().Format(time.RFC3339))
	}
	return strings.TrimSpace(b.String())
}

// list is siptrace.trace.list.
func (c *commands) list(_ context.Context, call *rpc.Call) (any, error) {
	want, one := call.Str(0)
	out := rpc.List{}
	for _, s := range c.engine.List() {
		if one && s.ID != want {
			continue
		}
		until, started := "-", "configuration"
		if !s.Until.IsZero() {
			until = s.Until.Local().Format(time.RFC3339)
		}
		if !s.Started.IsZero() {
			started = s.Started.Local().Format(time.RFC3339)
		}
		out = append(out, rpc.Struct{
			{Name: "id", Value: s.ID},
			{Name: "filter", Value: s.Filter},
			{Name: "scope", Value: s.Scope},
			{Name: "destination", Value: strings.Join(s.Destinations, ",")},
			{Name: "correlation_id", Value: s.CorrelationID},
			{Name: "users", Value: strings.Join(s.Users, ",")},
			{Name: "table", Value: s.Table},
			{Name: "until", Value: until},
			{Name: "started", Value: started},
			{Name: "by", Value: s.By},
			{Name: "matched", Value: int64(s.Matched)},
			{Name: "traced", Value: int64(s.Traced)},
		})
	}
	if one && len(out) == 0 {
		return nil, rpc.Faultf(404, "there is no rule %.64s", want)
	}
	return out, nil
}

// stop is siptrace.trace.stop.
func (c *commands) stop(ctx context.Context, call *rpc.Call) (any, error) {
	id, ok := call.Str(0)
	if key, value, isWord := word(id); isWord && key == "id" {
		id = value
	}
	if !ok || id == "" {
		return nil, rpc.Faultf(400, "Not enough parameters (the id of a rule, or all)")
	}
	ended, err := c.engine.Stop(id)
	if err != nil {
		return nil, rpc.Faultf(404, "%s", err)
	}
	out := rpc.List{}
	for _, e := range ended {
		c.tell(ctx, call, e, "in force", "stopped")
		out = append(out, e)
	}
	return out, nil
}

// traceMsg is sip_trace_msg.
func (c *commands) traceMsg(_ context.Context, call *rpc.Call) (any, error) {
	var p [5]string
	for i := range p {
		s, ok := call.Str(i)
		if !ok && i < 4 {
			return nil, rpc.Faultf(400, "Not enough parameters (text, from, to, address, correlation_id)")
		}
		p[i] = s
	}
	to := destination(p[3])
	if to == "" {
		return nil, rpc.Faultf(400, "%.80q can't be a destination: want sip:host:port;transport=udp", p[3])
	}
	if len(p[0]) > maxText {
		return nil, rpc.Faultf(400, "text: %d bytes, at most %d are possible", len(p[0]), maxText)
	}
	r, err := traceMsgRecord(time.Now(), []byte(p[0]), p[1], p[2], to, []byte(p[4][:min(len(p[4]), maxCorrelation)]))
	if err != nil {
		return nil, rpc.Faultf(400, "%s", err)
	}
	c.out.Emit(r)
	return nil, nil
}

// maxText is what fits into one datagram as HEP3.
const maxText = 60 << 10

// hlog is hlog and hlog_cid.
func (c *commands) hlog(_ context.Context, call *rpc.Call) (any, error) {
	first, ok := call.Str(0)
	if second, two := call.Str(1); two {
		first, ok = second, true
	} else if strings.HasSuffix(call.Method, "hlog_cid") {
		ok = false
	}
	if !ok {
		return nil, rpc.Faultf(400, "Not enough parameters (correlation_id, text)")
	}
	if len(first) > maxText {
		return nil, rpc.Faultf(400, "text: %d bytes, at most %d are possible", len(first), maxText)
	}
	cid := []byte{}
	if len(call.Params) > 1 {
		s, _ := call.Str(0)
		cid = []byte(s[:min(len(s), maxCorrelation)])
	}
	c.engine.count.hlog.Add(1)
	c.out.Emit(hlogRecord(time.Now(), cid, cid, []byte(first)))
	return nil, nil
}
