package vhost

import _ "example.com/bad/internal/tools/x"
