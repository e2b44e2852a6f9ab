package binrpc

import (
	"math"

	"siptraced/rpc"
)

// Reply is the answer to a [Request].
type Reply struct {
	Cookie uint32
	Fault  *rpc.Fault // nil = success
	// Value is the result: nil for an empty reply, the value of a single
	// record, a List of many. Append takes any result of a handler.
	Value any
	// Body is the records as they came, for rpc.Forwarded. It aliases what
	// Decode read; Append ignores it.
	Body []byte
}

// Decode reads a whole packet, and ignores what follows it. The error is
// [ErrTruncated], [ErrCorrupted] when b is no reply, or a [*RecordError]; then
// Cookie and Body are set.
func (r *Reply) Decode(b []byte) error {
	*r = Reply{}
	var h header
	ok, err := h.parse(b)
	r.Cookie = h.cookie
	switch {
	case err != nil || ok && h.kind == kindRequest:
		return ErrCorrupted
	case !ok || len(b)-h.size < h.body:
		return ErrTruncated
	}
	r.Body = b[h.size : h.size+h.body]
	body := reader{b: r.Body, left: maxReplyRecords, nullNil: true}
	var list rpc.List
	for body.i < len(body.b) {
		v, err := body.value()
		if err != nil {
			return err
		}
		list = append(list, v)
	}
	switch {
	case h.kind == kindFault:
		r.Fault = fault(list)
	case len(list) == 1:
		r.Value = list[0]
	case len(list) > 1:
		r.Value = list
	}
	return nil
}

// fault makes a Fault of what should be a code and a text.
func fault(list rpc.List) *rpc.Fault {
	f := &rpc.Fault{}
	for _, v := range list {
		switch v := v.(type) {
		case int64:
			f.Code = int(v)
		case string:
			f.Text = v
		}
	}
	return f
}

// Append writes the packet. The error is a [*TypeError].
func (r Reply) Append(dst []byte) ([]byte, error) {
	if r.Fault != nil {
		return appendFault(dst, r.Cookie, r.Fault), nil //nolint:nilerr // the fault is what is written
	}
	return appendPacket(dst, kindReply, r.Cookie, func(b []byte) ([]byte, error) {
		switch v := r.Value.(type) {
		case nil:
			return b, nil
		case rpc.List:
			return appendRecords(b, v)
		case rpc.Records:
			return appendRecords(b, v)
		case rpc.Forwarded:
			return append(b, v.Body...), nil
		default:
			return appendValue(b, v, false)
		}
	})
}

func appendRecords(b []byte, list []any) (_ []byte, err error) {
	for _, v := range list {
		if b, err = appendValue(b, v, false); err != nil {
			return b, err
		}
	}
	return b, nil
}

// appendFault writes a fault, its text cut to what ctl can hold.
func appendFault(dst []byte, cookie uint32, f *rpc.Fault) []byte {
	code := int64(max(math.MinInt32, min(f.Code, math.MaxInt32)))
	out, err := appendPacket(dst, kindFault, cookie, func(b []byte) ([]byte, error) {
		return appendRecords(b, []any{code, f.Text[:min(len(f.Text), maxFaultText)]})
	})
	if err != nil { // an int and a string can always be written
		return dst
	}
	return out
}
