package binrpc

// Request is a call of a method. Its body is the method's name and then the
// parameters, one record each.
type Request struct {
	Cookie uint32 // the reply carries it too
	Method string
	Params []any
}

// Decode reads a whole packet, and ignores what follows it. Parameters end
// before the first that can't be read: it counts as missing, as in ctl. The
// error is [ErrTruncated], [ErrCorrupted] when b is no request, or a
// [*RecordError] when it has no method name; the cookie is set if it was there.
// Nothing aliases b.
func (r *Request) Decode(b []byte) error {
	*r = Request{}
	var h header
	ok, err := h.parse(b)
	r.Cookie = h.cookie
	switch {
	case err != nil || h.kind != kindRequest:
		return ErrCorrupted
	case !ok || len(b)-h.size < h.body:
		return ErrTruncated
	}
	body := reader{b: b[h.size : h.size+h.body], left: maxParamRecords}
	if r.Method, err = body.string(typeString); err != nil {
		return err
	}
	for body.i < len(body.b) {
		v, err := body.value()
		if err != nil {
			break
		}
		r.Params = append(r.Params, v)
	}
	return nil //nolint:nilerr // a parameter that can't be read counts as missing, with all behind it
}

// Append writes the packet. The error is a [*TypeError].
func (r Request) Append(dst []byte) ([]byte, error) {
	return appendPacket(dst, kindRequest, r.Cookie, func(b []byte) (_ []byte, err error) {
		b = appendText(b, typeString, r.Method)
		for _, p := range r.Params {
			if b, err = appendValue(b, p, false); err != nil {
				return b, err
			}
		}
		return b, nil
	})
}
