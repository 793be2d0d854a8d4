package embed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/join/registry"
	"github.com/kvorum/kvorum/internal/join/srv"
	"github.com/kvorum/kvorum/internal/join/static"
	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// discoveryPause is the first wait for a discovery cluster that does not answer.
const discoveryPause = 2 * time.Second

// discover fills in --initial-cluster where that is to be found elsewhere: in DNS or at
// another cluster. It is for members that form a cluster, and waits for the others.
func (s *Server) discover() (err error) {
	d := &s.cfg.Discovery
	switch {
	case d.SRV != "":
		q := srv.Query{
			DNS: net.DefaultResolver, Domain: d.SRV, Suffix: d.SRVName, Name: s.cfg.Name, URLs: s.cfg.AdvertisePeerURLs, Log: s.log,
			Address: func(hostPort string) (string, error) {
				a, err := net.ResolveTCPAddr("tcp", hostPort)
				if err != nil {
					return "", err
				}
				return a.String(), nil
			},
		}
		s.cfg.InitialCluster, err = q.InitialCluster(context.Background())
	case d.Token != "":
		if s.cfg.InitialClusterState == config.ClusterExisting {
			return errors.New("discovery URL should not be set when joining existing initial cluster")
		}
		err = s.meet()
	}
	return err
}

// meet finds the other members at the discovery cluster. Its token takes the place of
// the cluster's own.
func (s *Server) meet() error {
	d := &s.cfg.Discovery
	client, err := s.discoveryClient()
	if err != nil {
		return fmt.Errorf("failed to join discovery cluster (%w)", err)
	}
	s.cfg.InitialClusterToken = d.Token
	var self []string
	for _, u := range s.cfg.AdvertisePeerURLs.Strings() {
		self = append(self, s.cfg.Name+"="+u)
	}
	s.cfg.InitialCluster, err = registry.Join(context.Background(), registry.Options{
		Client: client, Token: d.Token, Member: static.MemberID(s.cfg.AdvertisePeerURLs.Strings(), d.Token), Self: strings.Join(self, ","),
		Timeout: d.RequestTimeout, Pause: discoveryPause, Log: s.log,
	})
	if err != nil {
		s.log.Warn("discovery failed to join cluster: a token is for one cluster, and for one try", "token", d.Token, "error", err.Error())
		return err
	}
	s.log.Info("discovery joined cluster successfully", "initial-cluster", s.cfg.InitialCluster)
	return nil
}

// discoveryClient is how the discovery cluster is reached: by TLS if anything is said
// about it.
func (s *Server) discoveryClient() (cfg clientv3.Config, err error) {
	d := &s.cfg.Discovery
	cfg = clientv3.Config{
		Endpoints: d.Endpoints, DialTimeout: d.DialTimeout, DialKeepAliveTime: d.KeepAliveTime, DialKeepAliveTimeout: d.KeepAliveTimeout,
		Username: d.User, Password: d.Password, Logger: zap.NewNop(),
	}
	if d.CertFile+d.KeyFile+d.CAFile == "" && d.InsecureTransport && !d.SkipVerify {
		return cfg, nil
	}
	files := tlsfiles.Files{CertFile: d.CertFile, KeyFile: d.KeyFile, TrustedCAFile: d.CAFile, SkipVerify: d.SkipVerify, Log: s.log}
	next, err := files.Client()
	if err != nil {
		return cfg, err
	}
	cfg.TLS = next()
	return cfg, nil
}
