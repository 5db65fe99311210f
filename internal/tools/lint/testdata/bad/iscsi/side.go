package iscsi

import _ "example.com/bad/vhost"
