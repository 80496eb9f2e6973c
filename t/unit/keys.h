/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file keys.h
 * Keys for the tests of tokens, made with openssl for this purpose alone, and tokens that openssl
 * signed with them: nothing of the code under test had a hand in them. The claims are
 * {"exp":1795456888,"iss":"site","channels":["news"]} unless the name says otherwise.
 */
#ifndef ES_TEST_KEYS_H
#define ES_TEST_KEYS_H

enum { KEYS_EXP = 1795456888 };

static const char rsa_private[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQClOef1SRXzfvtv\n"
    "gfBNk0Ey7jIKqjAfsl/lWz9ipQbxQ2wfrOxzSPddfD8d/DW05JAdYkufOLjg9L4E\n"
    "tPQOtQ3uiWQl2GFpihXw3HxmAd097nY7zxVaxS8gUdRlGmgtTMvgvGqOIaxrWrb6\n"
    "F0nCa9aGqzoEiXazkcfLu7SV7qWuwKkyxJCh6PQR7CGzoPDY39+qQoFZoK7SGTx8\n"
    "Zd6cJVfVHR0G2Xht2NPKMJ8jlVg6X69x0rdPSltkHlaOeOBy++Y+WcruVLtLadHD\n"
    "FZRSKFuD17XpgR704KC3sEWte5ORmgAwmaWoO06LmzWUsfjgEmUD/RW/L0PrvnIV\n"
    "/3BYZbY7AgMBAAECggEAHHRdAK6eA6m2No1rq4h1HYbNAm4tzH+lKTQuNdhS2kDw\n"
    "wYG/1NjXlPd9TTYur6D/Org/asPTfxZXFSturou6wv5RS304xXq87ZajK9QdXHmR\n"
    "ThqLRG8Z/xhomiLSlx6XK/R261RcQ77DLU3Oa5ezwcyCON7NnP45qNoCLyIC0ZXg\n"
    "bOPzR47Bl20VLqhzMAJHZJdCidSozdNTV7g+K/loP9Dhwl2vvlZ5PFixBfzGXtfO\n"
    "4g7XiPhRlgl1PhpKp4WZkjn84iqwd1QLgbdbLpprYPSshPUlb9809/Nsrsrl0OHn\n"
    "dkytrD/eafsAtxyRgxK4OSzlVRH+amJ0v60Tyz82rQKBgQDcLnLfGjSYsnSWIxGw\n"
    "d9jzXiPndlZ/oHhrlear+N9WXXF77TUlgfRh0tTTkhAIz2CVU029hcaJMkH9T5DA\n"
    "O2o6MT0SiSk9+HsbnTDT8ZfUzDU78vzh7wAF8zTmRWupsElkM6QuAthEw8h0gS+d\n"
    "B5L3jpkrV41RrNvyBwWTmi61HwKBgQDAGtKLveQTjsQpkrkDMgISQjFVX/q583zt\n"
    "6NqV/cABx6qvsL0xNEP9xUdIRRNkrfvO2iagw8SzmZ5OniuTgJxL5Rx34lmZVfXT\n"
    "eEn18QvfBWMjOWEVbmGZu12/O51yVBeLhxmlTnUREJyQAzSue/YgfVw81PPIesSg\n"
    "A68xpUafZQKBgFu37ZoKLIa/L9mq2h+MjQ8z0/kDTpzzl7YZR3GzxjUPz8oz0cPC\n"
    "Eq79SDKp0YwZ9r29adDc/QsBqIOAtWeeWG3NPQePo2JxM7cZD9H5/aljN3m1iqoD\n"
    "CRtxaEPT/zk8ehYHfQi9nqFmfQYrGk5rbUk6WYu4eOHhA+4aBrSpsXM5AoGAP26b\n"
    "5xiknvCdRTz1amCw3maM86vlllEYB1bEFpLbO7s6WRj636xqZvklOG/Wn3/zjbHq\n"
    "31rFMKig5UTFDseA1G6qn8tV2pPPwCwP/+3ABbw5p//iVrlD8Qc1RVfh/UZXH/NU\n"
    "PIlTjnb1u3fThWnZM5ExS8TlWmVvV4bf6nywfSECgYEA0yptFAJK3dwbWBdUL6Xk\n"
    "/aaczYN055r1bLpFUBIcQrdy34Fge0FK5mrjTm9WDO6UZDSFG2OzAt/0z8Rmsost\n"
    "MLyDfCNUynQMJsQqsA1xDxEOjfXfRQNq2CHj4Zav6b6TXKsTxh0qo34OMeFBa9as\n"
    "XbbOTFNMkTy2/VYaIxZw+yg=\n"
    "-----END PRIVATE KEY-----\n";

static const char rsa_private_old[] =
    "-----BEGIN RSA PRIVATE KEY-----\n"
    "MIIEowIBAAKCAQEApTnn9UkV8377b4HwTZNBMu4yCqowH7Jf5Vs/YqUG8UNsH6zs\n"
    "c0j3XXw/Hfw1tOSQHWJLnzi44PS+BLT0DrUN7olkJdhhaYoV8Nx8ZgHdPe52O88V\n"
    "WsUvIFHUZRpoLUzL4LxqjiGsa1q2+hdJwmvWhqs6BIl2s5HHy7u0le6lrsCpMsSQ\n"
    "oej0Eewhs6Dw2N/fqkKBWaCu0hk8fGXenCVX1R0dBtl4bdjTyjCfI5VYOl+vcdK3\n"
    "T0pbZB5WjnjgcvvmPlnK7lS7S2nRwxWUUihbg9e16YEe9OCgt7BFrXuTkZoAMJml\n"
    "qDtOi5s1lLH44BJlA/0Vvy9D675yFf9wWGW2OwIDAQABAoIBABx0XQCungOptjaN\n"
    "a6uIdR2GzQJuLcx/pSk0LjXYUtpA8MGBv9TY15T3fU02Lq+g/zq4P2rD038WVxUr\n"
    "bq6LusL+UUt9OMV6vO2WoyvUHVx5kU4ai0RvGf8YaJoi0pcelyv0dutUXEO+wy1N\n"
    "zmuXs8HMgjjezZz+OajaAi8iAtGV4Gzj80eOwZdtFS6oczACR2SXQonUqM3TU1e4\n"
    "Piv5aD/Q4cJdr75WeTxYsQX8xl7XzuIO14j4UZYJdT4aSqeFmZI5/OIqsHdUC4G3\n"
    "Wy6aa2D0rIT1JW/fNPfzbK7K5dDh53ZMraw/3mn7ALcckYMSuDks5VUR/mpidL+t\n"
    "E8s/Nq0CgYEA3C5y3xo0mLJ0liMRsHfY814j53ZWf6B4a5Xmq/jfVl1xe+01JYH0\n"
    "YdLU05IQCM9glVNNvYXGiTJB/U+QwDtqOjE9EokpPfh7G50w0/GX1Mw1O/L84e8A\n"
    "BfM05kVrqbBJZDOkLgLYRMPIdIEvnQeS946ZK1eNUazb8gcFk5outR8CgYEAwBrS\n"
    "i73kE47EKZK5AzICEkIxVV/6ufN87ejalf3AAceqr7C9MTRD/cVHSEUTZK37ztom\n"
    "oMPEs5meTp4rk4CcS+Ucd+JZmVX103hJ9fEL3wVjIzlhFW5hmbtdvzudclQXi4cZ\n"
    "pU51ERCckAM0rnv2IH1cPNTzyHrEoAOvMaVGn2UCgYBbt+2aCiyGvy/ZqtofjI0P\n"
    "M9P5A06c85e2GUdxs8Y1D8/KM9HDwhKu/UgyqdGMGfa9vWnQ3P0LAaiDgLVnnlht\n"
    "zT0Hj6NicTO3GQ/R+f2pYzd5tYqqAwkbcWhD0/85PHoWB30IvZ6hZn0GKxpOa21J\n"
    "OlmLuHjh4QPuGga0qbFzOQKBgD9um+cYpJ7wnUU89WpgsN5mjPOr5ZZRGAdWxBaS\n"
    "2zu7OlkY+t+samb5JThv1p9/842x6t9axTCooOVExQ7HgNRuqp/LVdqTz8AsD//t\n"
    "wAW8Oaf/4la5Q/EHNUVX4f1GVx/zVDyJU4529bt304Vp2TORMUvE5Vplb1eG3+p8\n"
    "sH0hAoGBANMqbRQCSt3cG1gXVC+l5P2mnM2DdOea9Wy6RVASHEK3ct+BYHtBSuZq\n"
    "405vVgzulGQ0hRtjswLf9M/EZrKLLTC8g3wjVMp0DCbEKrANcQ8RDo3130UDatgh\n"
    "4+GWr+m+k1yrE8YdKqN+DjHhQWvWrF22zkxTTJE8tv1WGiMWcPso\n"
    "-----END RSA PRIVATE KEY-----\n";

static const char rsa_public[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApTnn9UkV8377b4HwTZNB\n"
    "Mu4yCqowH7Jf5Vs/YqUG8UNsH6zsc0j3XXw/Hfw1tOSQHWJLnzi44PS+BLT0DrUN\n"
    "7olkJdhhaYoV8Nx8ZgHdPe52O88VWsUvIFHUZRpoLUzL4LxqjiGsa1q2+hdJwmvW\n"
    "hqs6BIl2s5HHy7u0le6lrsCpMsSQoej0Eewhs6Dw2N/fqkKBWaCu0hk8fGXenCVX\n"
    "1R0dBtl4bdjTyjCfI5VYOl+vcdK3T0pbZB5WjnjgcvvmPlnK7lS7S2nRwxWUUihb\n"
    "g9e16YEe9OCgt7BFrXuTkZoAMJmlqDtOi5s1lLH44BJlA/0Vvy9D675yFf9wWGW2\n"
    "OwIDAQAB\n"
    "-----END PUBLIC KEY-----\n";

static const char ec_private[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIkFhe4EKLJKcztLQ\n"
    "dhLQUKujnfATulUkplx2oQfXWlmhRANCAARq/LFDaTAWxirfQt1wCA/5XE/Q7gEs\n"
    "QGASo8ZbeUx8mJL2A4vvOmkRdLACieaowSc2crUgSeHlUX7NT6zReQ4e\n"
    "-----END PRIVATE KEY-----\n";

static const char ec_private_old[] =
    "-----BEGIN EC PARAMETERS-----\n"
    "BggqhkjOPQMBBw==\n"
    "-----END EC PARAMETERS-----\n"
    "-----BEGIN EC PRIVATE KEY-----\n"
    "MHcCAQEEICJBYXuBCiySnM7S0HYS0FCro53wE7pVJKZcdqEH11pZoAoGCCqGSM49\n"
    "AwEHoUQDQgAEavyxQ2kwFsYq30LdcAgP+VxP0O4BLEBgEqPGW3lMfJiS9gOL7zpp\n"
    "EXSwAonmqMEnNnK1IEnh5VF+zU+s0XkOHg==\n"
    "-----END EC PRIVATE KEY-----\n";

static const char ec_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEavyxQ2kwFsYq30LdcAgP+VxP0O4B\n"
                                "LEBgEqPGW3lMfJiS9gOL7zppEXSwAonmqMEnNnK1IEnh5VF+zU+s0XkOHg==\n"
                                "-----END PUBLIC KEY-----\n";

static const char rsa_1024_public[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCaTQrCIakDM5Q0bTBmkgX89zAO\n"
    "GH/x1jUpHfxXm9XmgWfNHhGT0GWO7n04W8UVN4TJ1rwhDd71Ot4N2J3yZy4PttBY\n"
    "q9OKnLok7362n7unn2/PHOocgEqCOJhXvv+xo5TtUXmn2I5R+prySWhKsVZlL01q\n"
    "3uByDIN6vymL5VY7uwIDAQAB\n"
    "-----END PUBLIC KEY-----\n";

static const char ec_384_private[] =
    "-----BEGIN EC PRIVATE KEY-----\n"
    "MIGkAgEBBDBDZFIZ3XK3vdnu1LuYto+dL6UViasODudzoxmSV85W9U9n4eT3CAWI\n"
    "ECLOeqHBWnqgBwYFK4EEACKhZANiAASCrZGRRNtJKo6m6cdA+0PoMUn+UXQeU9VX\n"
    "EvpXMJFendt30JSyRUC3xIFGc0n23Bk6iwS/f+PSp8wqCQIZzCKIIV0+HXhZDYgp\n"
    "9vx5zJOHV7nmqy3oA77TXG13gsUeEbs=\n"
    "-----END EC PRIVATE KEY-----\n";

static const char ec_384_public[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEgq2RkUTbSSqOpunHQPtD6DFJ/lF0HlPV\n"
    "VxL6VzCRXp3bd9CUskVAt8SBRnNJ9twZOosEv3/j0qfMKgkCGcwiiCFdPh14WQ2I\n"
    "Kfb8ecyTh1e55qst6AO+01xtd4LFHhG7\n"
    "-----END PUBLIC KEY-----\n";

static const char ed_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                "MCowBQYDK2VwAyEAQ/u+guNrTGOCeKbF++Db2fOWts+V74RklIOXpHIGICI=\n"
                                "-----END PUBLIC KEY-----\n";

static const char rsa_encrypted[] =
    "-----BEGIN RSA PRIVATE KEY-----\n"
    "Proc-Type: 4,ENCRYPTED\n"
    "DEK-Info: AES-128-CBC,34C2225871CE6C1F64FC0611199E2018\n"
    "\n"
    "p2Ii+ydVxXXOYYF9nJw+xDnoHFHGJeEmqC3sDR/nKMhfP8sAxi6Leun1XOE9dAw2\n"
    "xMoSotgdhY/t3Iw5jwpKyx0FHv69n9X+2lFLwVOfzxUKKhVDV1veADyRj9a4Ap/H\n"
    "eZuM7CFQYF8fPrq4AodcPwz+EjuHclwhDFbWfOivRvz43xD8kRJqOTdi4m6VrqA7\n"
    "chCVNB0TTa+qOeduNSbYBNQT0pppEoWu6Tkty4LtxtBXUles14QLo4KP8DL0xJXc\n"
    "h8tT/IqAWY1AunXVmTj48d46OGP823ymB0hDdzJMEA0JebTPAClnkIz1niRZfqoW\n"
    "t5VTkhEVhbdGPyxOInYWbHKjBDfmtI9pIMx1WJ5NGB3H+Wz/3UsVg9hzjKDess1b\n"
    "n7M1SscGI/kjWfuNXtXPxJkcDhRr2sL8PHMp/hqrSJid2c7q34rkP8cxJXedeII3\n"
    "kToP17EuYxeMhRuQoX8yj6BszHEpWvcjpGJVVUcyzCRDpJhUAmLCxJcQ+C+4u3Q8\n"
    "awmHeNuFS/SLdL0x+bOBUPYRv2a5p7djBwgso4fF0xCQiW6XWMq7zv1kY6msUR6H\n"
    "voB7trG6KDvSr/u58ba9aO2Ejht73s6H7rDlLYLPS+aoIBLLLtpBv5HJMBXXa6ry\n"
    "M3tBEFZKMm0+Ef6+7jfJauGxWQFOt3uJykytViYT+Fan7LWMZNtvlNdy0bZqf9gE\n"
    "N6Nxh0Z4t3iQvJnFuS4ebbTi5RPJ6zkZVSaNfg8IOVFw50whOrAvLBiZm4zluzsc\n"
    "Y33+OZ9N2nQRIJ0wV0DnU9heo3dB1ZBwtXb/z0SCwk6jViNc1cUS1MCJWvUNsjpX\n"
    "6JTIV6/tiKBBqsWCQNL4f4ZtCKl4yGq8rZ4Rp7poiJgLRo+p8ofXyaFmTlpnEUTf\n"
    "5Tlnmk29KI7FpsC0oewpFpr5JujR1BxOCMFECssCBfwClOPsrM6iqo9iKkMCwNDe\n"
    "0IPNxB+7dQu52EXQPX7z0MGcqp+IWZnUMP62UY3rsXgqBhz24h5dY8SuVPlnV95k\n"
    "vISKExiSAjWHp4+BvXPhXlgDrjTyQoOz7uR0pImTRckvQvi6WN2qWnJ+MQV1tS5I\n"
    "JObZzoG8rYMskDaAfPjyIa3k306ihscrvxrkoXMQdvA76HztpkhJQVMT/K6WT1zj\n"
    "9nBHrfKl6P+Vznwlg28ajkJ+WMBLDauNey0VklkMlUBDT5qtJ9f7X5jmV1qG9Xei\n"
    "CX+iUHOECWzQn+bCz31Ilqx0A90WAz+LbfBSfMEIcOSMZE1AqTpno40ddbJfhJkV\n"
    "v+SKAkGq0M97LXN+YAR89Q8LaeN70sGQkdvXQQ8cJxETQtqgz3y6S/EZ5oRqIU6y\n"
    "AZXjVW3VW4tdRYE5ezSiC8hsYhV8sxh4ivibtoW18Lm6G7Xf1SioqKii9hq/+bgL\n"
    "NcA3oYmH2ee3zUxRprBopsecn0DqBSqa5azxT6ZRdKAMgZKIJV5B02j5WaQS+DKw\n"
    "oU6JmNSoBBa5lYmjTIRxc7CWUSpE/E8+cuSxY0lMaYYnUUT0sLKGm/tuqs6Mqspg\n"
    "rQDEnzcIDhxrZ5kh35S2I9P8Mn9fcFgSaAuqCIKbY2TQ1Akv4K9cn+lmRELffV+9\n"
    "-----END RSA PRIVATE KEY-----\n";

static const char rsa_public_old[] =
    "-----BEGIN RSA PUBLIC KEY-----\n"
    "MIIBCgKCAQEApTnn9UkV8377b4HwTZNBMu4yCqowH7Jf5Vs/YqUG8UNsH6zsc0j3\n"
    "XXw/Hfw1tOSQHWJLnzi44PS+BLT0DrUN7olkJdhhaYoV8Nx8ZgHdPe52O88VWsUv\n"
    "IFHUZRpoLUzL4LxqjiGsa1q2+hdJwmvWhqs6BIl2s5HHy7u0le6lrsCpMsSQoej0\n"
    "Eewhs6Dw2N/fqkKBWaCu0hk8fGXenCVX1R0dBtl4bdjTyjCfI5VYOl+vcdK3T0pb\n"
    "ZB5WjnjgcvvmPlnK7lS7S2nRwxWUUihbg9e16YEe9OCgt7BFrXuTkZoAMJmlqDtO\n"
    "i5s1lLH44BJlA/0Vvy9D675yFf9wWGW2OwIDAQAB\n"
    "-----END RSA PUBLIC KEY-----\n";

static const char rs256_token[] =
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InNpdGUiLCJjaGFubmVsc"
    "yI6WyJuZXdzIl19.RTWaCYDoue-FK96DjuiaSPP6WNZ2d4uxSf83TfNTh5upkxuIGTL_5xyXaxv_Xe9aK88Lt3Mlak"
    "-3RTNAIv9B-Jl3UoZURkEAwvYdYieZkSdGTXBPtU5OZppKW2g9skwEKfXKC_-MRCrrvNWkRRdmiVfm8SD_g7ojfpMB"
    "ugjxkMGjz6mIpc-KiPgCZrNmq989aR5Ro12InTr9VTnmIG0fhQcWtU6iy07EEkKLlhfUX8Y3EdfUetwA74nb7j9drQ"
    "C1zxvQgp8Isq7r8o2HQu17qphizm1F0mmzmFwxAly4zymPed_sg_gRy5cwGMK6bwSBEJU0vZk1Wc_XzuGdGf0klg";

static const char es256_token[] =
    "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InNpdGUiLCJjaGFubmVsc"
    "yI6WyJuZXdzIl19.Qc8_Z95dMQ8W425eTcoGZDhoj8AWkr20IfMP5A7hddAh9Whs9qZtGe28Qedu8LZ-xSn3Qr7uXg"
    "yie0VVeLvFPg";

/* HS256, the public key taken for a secret */
static const char confused_token[] =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InNpdGUiLCJjaGFubmVsc"
    "yI6WyJuZXdzIl19.lK0rwLsSJ8SecRGnihrFq550d-iijoinJSjYFjzuDhA";

/* The same, without the final line end */
static const char confused_token_2[] =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InNpdGUiLCJjaGFubmVsc"
    "yI6WyJuZXdzIl19.GxVJLPgxQTRy7d4SDTQkwQlM1q5HVJt7e0YW_2K820g";

/* alg says RS256, signed with the secret "changeme" */
static const char rs256_by_secret[] =
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InNpdGUiLCJjaGFubmVsc"
    "yI6WyJuZXdzIl19.1kQIlTvaUmRccJXZt07gCuVdVV8o4jo1-c4q-m4XKlI";

/* ES256 is named, RSA has signed */
static const char es256_by_rsa[] =
    "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InNpdGUiLCJjaGFubmVscyI6WyJuZXdzIl19."
    "HbptByUI-SNtIM2VmYlqRkv4OMRZFg_kOR-EJB0QotDoYF6RM4ecdAO-oiCQbu7URTPnjZTDL_EVRUo460A2uYyn4S"
    "VZLC_sAxrg-vAB11u7j3iv1GUYb37W_rAykQ1cB7ukUTmxxVjvlgWIFBdfz3GFdZ5SZB6HrEojvN07Zhipl-AfK0kd"
    "ayIQpGi885qhy4o3I3Odzg9P5n4WayxSf-CtKLTv9f1xcKOepUEKGwmn9ChW0w3ZX-PybsQEzi2xArc_0elKay4lLD"
    "HRn5_BUuO1-1VDv7b1gnMUSACRfT5PSgYcu4HvoqAJbmFP9BciwizDSbMkVO-x3SHUZUn61g";

#endif
