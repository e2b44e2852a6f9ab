package serve

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"siptraced/rpc"
)

// rpcPath is where JSON-RPC is served, and below it, as by the route that Kamailio's
// documentation of jsonrpcs has ($hu =~ "^/RPC").
const rpcPath = "/RPC"

func isRPC(path string) bool { return path == rpcPath || strings.HasPrefix(path, rpcPath+"/") }

// maxReason is how much of a fault's text goes into the status line, in bytes.
const maxReason = 255

// httpService serves HTTP on the connections of a stream.
type httpService struct {
	*stream
	server *fasthttp.Server
	token  atomic.Pointer[[sha256.Size]byte] // digest; nil: none is needed
}

// setToken replaces the token; empty: none is needed.
func (h *httpService) setToken(token string) {
	if token == "" {
		h.token.Store(nil)
		return
	}
	sum := sha256.Sum256([]byte(token))
	h.token.Store(&sum)
}

func newHTTP(st *stream) *httpService {
	h := &httpService{stream: st}
	h.setToken(st.l.Token)
	limits := st.srv.limits
	// stream sees to the number of connections: those that it closed may still be
	// on their way out, and don't count.
	h.server = &fasthttp.Server{
		Handler:                      h.handle,
		ErrorHandler:                 h.failed,
		Name:                         "siptraced",
		ReadTimeout:                  limits.Read,
		IdleTimeout:                  limits.Idle,
		WriteTimeout:                 limits.Write,
		MaxRequestBodySize:           maxRequest,
		DisablePreParseMultipartForm: true,
		NoDefaultDate:                true,
		CloseOnShutdown:              true,
		Logger:                       httpLog{st.srv.log},
	}
	return h
}

func (h *httpService) serve() {
	listener := net.Listener(h.stream)
	if h.l.TLS != nil {
		listener = tls.NewListener(listener, h.l.TLS)
	}
	if err := h.server.Serve(listener); err != nil && !h.stopping() {
		h.srv.log.Error("rpc listener failed", "listener", h.l, "error", err)
	}
	// Waits for the connections; kill closes those that hold it up.
	_ = h.server.ShutdownWithContext(context.Background())
}

// failed is told of requests that can't be read.
func (h *httpService) failed(ctx *fasthttp.RequestCtx, err error) {
	cause := CauseBad
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		cause = CauseTooLong
		ctx.Error("Request Entity Too Large", fasthttp.StatusRequestEntityTooLarge)
	case isTimeout(err):
		cause = CauseUnfinished
		ctx.Error("Request Timeout", fasthttp.StatusRequestTimeout)
	default:
		ctx.Error("Bad Request", fasthttp.StatusBadRequest)
	}
	ctx.SetConnectionClose()
	h.srv.refuse(h.l, cause, h.peer(ctx))
}

func (h *httpService) peer(ctx *fasthttp.RequestCtx) rpc.Peer {
	peer := rpc.NewPeer("http", ctx.RemoteAddr().String())
	if state := ctx.TLSConnectionState(); state != nil && len(state.PeerCertificates) > 0 {
		peer.Addr += " CN=" + state.PeerCertificates[0].Subject.CommonName
	}
	return peer
}

func (h *httpService) handle(ctx *fasthttp.RequestCtx) {
	c := connOf(ctx.Conn())
	if c == nil || !c.begin() {
		ctx.SetConnectionClose()
		return
	}
	defer c.end()
	peer := h.peer(ctx)
	if h.srv.tooFast(h.l, peer, false) {
		ctx.Error("Too Many Requests", fasthttp.StatusTooManyRequests)
		return
	}
	if !isRPC(string(ctx.Path())) {
		ctx.Error("Not Found", fasthttp.StatusNotFound)
		return
	}
	if !h.authorized(ctx) {
		ctx.Error("Unauthorized", fasthttp.StatusUnauthorized)
		ctx.Response.Header.Set("WWW-Authenticate", `Bearer realm="siptraced"`)
		h.srv.refuse(h.l, CauseAuth, peer)
		return
	}
	if !h.sameOrigin(ctx) {
		ctx.Error("Forbidden", fasthttp.StatusForbidden)
		h.srv.refuse(h.l, CauseOrigin, peer)
		return
	}
	h.answer(ctx, peer)
}

// answer runs the request in the body. Without a reply the connection is closed
// and nothing said, as by Kamailio.
func (h *httpService) answer(ctx *fasthttp.RequestCtx, peer rpc.Peer) {
	callCtx, cancel := h.srv.call()
	defer cancel()
	a := h.srv.answerJSON(callCtx, h.l, peer, ctx.PostBody(), 0)
	if a.Status == 0 {
		ctx.HijackSetNoResponse(true)
		ctx.Hijack(func(net.Conn) {})
		return
	}
	ctx.SetStatusCode(a.Status)
	ctx.Response.Header.SetStatusMessage([]byte(a.Reason[:min(len(a.Reason), maxReason)]))
	ctx.Response.Header.Set("Sia", "SIP/2.0/TCP "+ctx.RemoteAddr().String())
	ctx.SetContentType("application/json")
	ctx.SetBody(a.Body)
}

// authorized compares digests, so that neither the time it takes nor the length
// tells anything of the token.
func (h *httpService) authorized(ctx *fasthttp.RequestCtx) bool {
	want := h.token.Load()
	if want == nil {
		return true
	}
	scheme, token, _ := strings.Cut(string(ctx.Request.Header.Peek("Authorization")), " ")
	sum := sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], want[:]) == 1
}

// sameOrigin keeps web pages of others from using an operator's browser: they
// can send a POST to 127.0.0.1, but neither without their Origin nor, by a name
// that they let point here, without that name as Host.
func (h *httpService) sameOrigin(ctx *fasthttp.RequestCtx) bool {
	host := string(ctx.Host())
	if origin := string(ctx.Request.Header.Peek("Origin")); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, host) {
			return false
		}
	}
	if h.token.Load() != nil || h.l.mutual() || host == "" {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}

// connOf returns the *conn below what fasthttp serves.
func connOf(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

// httpLog takes fasthttp's complaints about clients: they are counted, and not
// worth more than a debug line.
type httpLog struct{ log *slog.Logger }

func (l httpLog) Printf(format string, args ...any) {
	l.log.Debug("http", "text", fmt.Sprintf(format, args...))
}
