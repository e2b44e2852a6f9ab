package flexisip

import (
	"bytes"
	"strconv"
	"strings"

	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

type variable uint8

const (
	constant variable = iota
	direction
	requestMethod
	requestDomain
	requestUser
	requestParams
	fromDomain
	fromUser
	fromParams
	toDomain
	toUser
	toParams
	contactDomain
	contactUser
	contactParams
	userAgent
	callID
	callIDHash
	statusPhrase
	statusCode
	contentType

	// $siptrace(...)
	srcAddr
	srcHost
	srcHostIP
	srcPort
	srcProto
	dstAddr
	dstHost
	dstHostIP
	dstPort
	dstProto
	traceDirection
)

// lookup finds a variable by its name.
func lookup(name string) (variable, bool) {
	switch name {
	case "direction":
		return direction, true
	case "request.method", "request.method-name":
		return requestMethod, true
	case "request.uri.domain":
		return requestDomain, true
	case "request.uri.user":
		return requestUser, true
	case "request.uri.params":
		return requestParams, true
	case "from.uri.domain":
		return fromDomain, true
	case "from.uri.user":
		return fromUser, true
	case "from.uri.params":
		return fromParams, true
	case "to.uri.domain":
		return toDomain, true
	case "to.uri.user":
		return toUser, true
	case "to.uri.params":
		return toParams, true
	case "contact.uri.domain":
		return contactDomain, true
	case "contact.uri.user":
		return contactUser, true
	case "contact.uri.params":
		return contactParams, true
	case "user-agent":
		return userAgent, true
	case "call-id":
		return callID, true
	case "call-id.hash":
		return callIDHash, true
	case "status.phrase":
		return statusPhrase, true
	case "status.code":
		return statusCode, true
	case "content-type":
		return contentType, true
	case "$siptrace(src_addr)":
		return srcAddr, true
	case "$siptrace(src_host)":
		return srcHost, true
	case "$siptrace(src_hostip)":
		return srcHostIP, true
	case "$siptrace(src_port)":
		return srcPort, true
	case "$siptrace(src_proto)":
		return srcProto, true
	case "$siptrace(dst_addr)":
		return dstAddr, true
	case "$siptrace(dst_host)":
		return dstHost, true
	case "$siptrace(dst_hostip)":
		return dstHostIP, true
	case "$siptrace(dst_port)":
		return dstPort, true
	case "$siptrace(dst_proto)":
		return dstProto, true
	case "$siptrace(direction)":
		return traceDirection, true
	}
	return 0, false
}

// get returns the value; what has to be made is appended to buf.
func (v *value) get(m *sipmsg.Message, r *siptrace.Record, w *work, buf []byte) []byte {
	switch k := v.variable; k {
	case constant:
		return v.text
	case direction:
		if m.IsRequest {
			return append(buf, "request"...)
		}
		return append(buf, "response"...)
	case requestMethod:
		return m.Method
	case requestDomain, requestUser, requestParams:
		return w.part(0, m.RequestURI, k-requestDomain)
	case fromDomain, fromUser, fromParams:
		return w.part(1, m.From.URI, k-fromDomain)
	case toDomain, toUser, toParams:
		return w.part(2, m.To.URI, k-toDomain)
	case contactDomain, contactUser, contactParams:
		return w.part(3, m.Contact.URI, k-contactDomain)
	case userAgent:
		return m.UserAgent
	case callID:
		return bytes.TrimRight(m.CallID, blanks)
	case callIDHash:
		if m.CallID == nil {
			return nil
		}
		return strconv.AppendUint(buf, uint64(hash(bytes.TrimRight(m.CallID, blanks))), 10)
	case statusPhrase:
		return bytes.TrimRight(m.Reason, blanks)
	case statusCode:
		return m.Status
	case contentType:
		t, _, _ := bytes.Cut(m.ContentType, []byte{';'})
		return bytes.TrimRight(t, blanks)
	case traceDirection:
		return append(buf, r.Direction...)
	case srcAddr, srcHost, srcHostIP, srcPort, srcProto:
		return endpoint(buf, &r.From, k)
	default:
		return endpoint(buf, &r.To, k-dstAddr+srcAddr)
	}
}

// part returns the domain, user or parameters of the i-th URI, which is b.
func (w *work) part(i int, b []byte, which variable) []byte {
	if !w.have[i] {
		w.uris[i], _ = sipmsg.ParseURI(b)
		w.have[i] = true
	}
	u := &w.uris[i]
	switch which {
	case 0:
		return u.Host
	case 1:
		return u.User
	}
	return u.Params
}

// endpoint appends what, one of src_*, of an end of the message.
func endpoint(buf []byte, e *siptrace.Endpoint, what variable) []byte {
	text := e.Append(buf)
	if what == srcAddr {
		return text
	}
	proto, rest, ok := bytes.Cut(text, []byte{':'})
	if !ok {
		proto, rest = nil, text
	}
	host, port := rest, []byte(nil)
	if i := bytes.LastIndexByte(rest, ':'); i > bytes.LastIndexByte(rest, ']') {
		host, port = rest[:i], rest[i+1:]
	}
	switch what {
	case srcHost:
		return host
	case srcHostIP:
		return bytes.TrimSuffix(bytes.TrimPrefix(host, []byte{'['}), []byte{']'})
	case srcPort:
		return port
	}
	return proto
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
	case strings.HasPrefix(name, "$siptrace"):
		return "$siptrace() has src_ and dst_ addr, host, hostip, port and proto, and direction"
	case strings.HasPrefix(name, "$"):
		return "of Kamailio's pseudo-variables there is $siptrace() alone"
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
