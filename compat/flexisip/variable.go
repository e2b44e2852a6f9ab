package flexisip

import (
	"bytes"
	"strconv"
	"strings"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// variable reads its value from a message; what has to be made is appended to buf.
type variable func(m *sipmsg.Message, r *siptrace.Record, w *work, buf []byte) []byte

// variables are those of Flexisip's filters, and $siptrace(...) and $siptraced(...).
var variables = map[string]variable{
	"direction": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte {
		if m.IsRequest {
			return directionRequest
		}
		return directionResponse
	},
	"request.method":      requestMethod,
	"request.method-name": requestMethod,

	"request.uri.domain": uriOf(requestURI, domain),
	"request.uri.user":   uriOf(requestURI, user),
	"request.uri.params": uriOf(requestURI, params),
	"from.uri.domain":    uriOf(fromURI, domain),
	"from.uri.user":      uriOf(fromURI, user),
	"from.uri.params":    uriOf(fromURI, params),
	"to.uri.domain":      uriOf(toURI, domain),
	"to.uri.user":        uriOf(toURI, user),
	"to.uri.params":      uriOf(toURI, params),
	"contact.uri.domain": uriOf(contactURI, domain),
	"contact.uri.user":   uriOf(contactURI, user),
	"contact.uri.params": uriOf(contactURI, params),

	"user-agent": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte { return m.UserAgent },
	"call-id": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte {
		return bytes.TrimRight(m.CallID, blanks)
	},
	"call-id.hash": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, buf []byte) []byte {
		if m.CallID == nil {
			return nil
		}
		return strconv.AppendUint(buf, uint64(hash(bytes.TrimRight(m.CallID, blanks))), 10)
	},
	"status.phrase": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte {
		return bytes.TrimRight(m.Reason, blanks)
	},
	"status.code": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte { return m.Status },
	"content-type": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte {
		t, _, _ := bytes.Cut(m.ContentType, []byte{';'})
		return bytes.TrimRight(t, blanks)
	},

	"$siptrace(src_addr)":   endpoint(source, siptrace.Endpoint.Append),
	"$siptrace(src_host)":   endpoint(source, host),
	"$siptrace(src_hostip)": endpoint(source, hostIP),
	"$siptrace(src_port)":   endpoint(source, port),
	"$siptrace(src_proto)":  endpoint(source, proto),
	"$siptrace(dst_addr)":   endpoint(destination, siptrace.Endpoint.Append),
	"$siptrace(dst_host)":   endpoint(destination, host),
	"$siptrace(dst_hostip)": endpoint(destination, hostIP),
	"$siptrace(dst_port)":   endpoint(destination, port),
	"$siptrace(dst_proto)":  endpoint(destination, proto),
	"$siptrace(direction)": func(_ *sipmsg.Message, r *siptrace.Record, _ *work, buf []byte) []byte {
		return append(buf, r.Direction...)
	},
	"$siptraced(defects)": func(m *sipmsg.Message, _ *siptrace.Record, _ *work, buf []byte) []byte {
		return m.Defects.Append(buf)
	},
}

var directionRequest, directionResponse = []byte("request"), []byte("response")

func requestMethod(m *sipmsg.Message, _ *siptrace.Record, _ *work, _ []byte) []byte { return m.Method }

// The URIs of a message, by their places in work.
const (
	requestURI = iota
	fromURI
	toURI
	contactURI
)

func domain(u *sipmsg.URI) []byte { return u.Host }
func user(u *sipmsg.URI) []byte   { return u.User }
func params(u *sipmsg.URI) []byte { return u.Params }

// uriOf reads a part of one of the URIs, which is taken apart once per evaluation.
func uriOf(which int, part func(*sipmsg.URI) []byte) variable {
	return func(m *sipmsg.Message, _ *siptrace.Record, w *work, _ []byte) []byte {
		if !w.have[which] {
			b := [...][]byte{m.RequestURI, m.From.URI, m.To.URI, m.Contact.URI}[which]
			w.uris[which], _ = sipmsg.ParseURI(b)
			w.have[which] = true
		}
		return part(&w.uris[which])
	}
}

func source(r *siptrace.Record) *siptrace.Endpoint      { return &r.From }
func destination(r *siptrace.Record) *siptrace.Endpoint { return &r.To }

// endpoint reads a part of one end of the message.
func endpoint(end func(*siptrace.Record) *siptrace.Endpoint, part func(siptrace.Endpoint, []byte) []byte) variable {
	return func(_ *sipmsg.Message, r *siptrace.Record, _ *work, buf []byte) []byte { return part(*end(r), buf) }
}

// spelled is one part of an end: of one that came as text as the text has it.
func spelled(e siptrace.Endpoint, buf []byte, text func(proto, host, port string) string, addr func(siptrace.Endpoint, []byte) []byte) []byte {
	if e.Text != "" {
		return append(buf, text(siptrace.SplitEndpoint(e.Text))...)
	}
	return addr(e.OrUnknown(), buf)
}

func host(e siptrace.Endpoint, buf []byte) []byte {
	return spelled(e, buf, func(_, host, _ string) string { return host }, siptrace.Endpoint.AppendHost)
}

func hostIP(e siptrace.Endpoint, buf []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimPrefix(host(e, buf), []byte{'['}), []byte{']'})
}

func port(e siptrace.Endpoint, buf []byte) []byte {
	return spelled(e, buf, func(_, _, port string) string { return port }, func(e siptrace.Endpoint, buf []byte) []byte {
		return strconv.AppendUint(buf, uint64(e.Addr.Port()), 10)
	})
}

func proto(e siptrace.Endpoint, buf []byte) []byte {
	return spelled(e, buf, func(proto, _, _ string) string { return proto }, func(e siptrace.Endpoint, buf []byte) []byte {
		return append(buf, e.Proto...)
	})
}

// hash is the number that Sofia-SIP, and so Flexisip, makes of a Call-ID: over
// its bytes, as signed numbers.
func hash(id []byte) uint32 {
	var h uint64
	for _, c := range id {
		h = (h + uint64(uint32(int32(int8(c))))) * 38501
	}
	if h == 0 {
		h--
	}
	return uint32(h)
}

// nearest says what there is instead of a variable that is not known.
func nearest(name string) string {
	switch {
	case strings.HasPrefix(name, "$siptraced"):
		return "there is $siptraced(defects)"
	case strings.HasPrefix(name, "$siptrace"):
		return "$siptrace() has src_ and dst_ addr, host, hostip, port and proto, and direction"
	case strings.HasPrefix(name, "$"):
		return "of Kamailio's pseudo-variables there is $siptrace() alone, and $siptraced(defects)"
	}
	for _, p := range [...]string{"request", "from", "to", "contact"} {
		if strings.HasPrefix(name, p+".") {
			extra := ""
			if p == "request" {
				extra = ", request.method"
			}
			return "there are " + p + ".uri.user, " + p + ".uri.domain, " + p + ".uri.params" + extra
		}
	}
	return "constants stand in single quotes"
}
