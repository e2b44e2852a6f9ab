package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// tlsConfig reads the files of a tls: entry.
func tlsConfig(certificate, key, clientCA string) (*tls.Config, error) {
	if certificate == "" || key == "" {
		return nil, errors.New("a tls: entry needs tls.certificate and tls.private_key")
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("tls.certificate, tls.private_key: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, fmt.Errorf("tls.client_ca: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.client_ca: %s holds no certificate", clientCA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
