# Make reference values of the result object with R: names of formulas, all modes, predictions, singular fits.
# Usage: Rscript tests/oracles/make_lmm_result.R tests/oracles   (after make_lmm.R, whose data it reads)
# Writes lmm_result.json and lmm/{grammar,singular}.csv. Made with R 4.2.2, lme4 1.1-31, broom.mixed 0.2.9.4.
suppressMessages({library(lme4); library(jsonlite); library(broom.mixed); library(splines)})
folder <- commandArgs(TRUE)[1]
at <- function(name) file.path(folder, "lmm", paste0(name, ".csv"))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5), calc.derivs = FALSE)
quiet <- function(e) suppressMessages(suppressWarnings(e))
oracle <- read_json(file.path(folder, "lmm.json"))
sets <- list()
for (n in unique(sapply(oracle$cases, function(x) x$data))) {
  sets[[n]] <- read.csv(at(n), stringsAsFactors = TRUE)
  for (g in c("Subject", "replicate")) if (g %in% names(sets[[n]])) sets[[n]][[g]] <- factor(sets[[n]][[g]])
}
sets$cake$temperature <- ordered(sets$cake$temperature)
few <- function(n) unique(round(seq(1, n, length.out = min(n, 40))))

# -- everything a fit gives, at some rows ------------------------------------------------------------------
modes <- function(m) {
  r <- as.data.frame(ranef(m, condVar = TRUE))
  list(grpvar = as.character(r$grpvar), term = as.character(r$term), grp = as.character(r$grp),
       condval = signif(r$condval, 10), condsd = signif(r$condsd, 10))
}
fits <- lapply(oracle$cases, function(case) {
  f <- as.formula(case$formula); d <- sets[[case$data]]
  m <- quiet(lmer(f, d, REML = case$REML, control = tight))
  rows <- few(nrow(d)); last <- tail(findbars(f), 1)[[1]]
  one <- as.formula(paste("~ (", deparse(last), ")"))
  list(data = case$data, formula = case$formula, REML = case$REML,
       theta = I(unname(getME(m, "theta"))), ranef = modes(m), rows = rows - 1,
       fitted = unname(fitted(m))[rows], residuals = unname(residuals(m))[rows],
       scaled = unname(residuals(m, scaled = TRUE))[rows], fixed = unname(predict(m, re.form = NA))[rows],
       one = paste("~ (", deparse(last), ")"), one_term = unname(predict(m, re.form = one))[rows],
       hat = unname(hatvalues(m))[rows], cooksd = unname(cooks.distance(m))[rows],
       sums = c(sum(fitted(m)), sum(fitted(m)^2), sum(hatvalues(m))))
})

# -- rows of known precision -------------------------------------------------------------------------------
sets$sleepstudy$w <- 1 + sets$sleepstudy$Days %% 3
sets$slopes$w <- 0.5 + (seq_len(nrow(sets$slopes)) %% 5)
weighted <- lapply(list(list("sleepstudy", Reaction ~ Days + (Days | Subject), TRUE),
                        list("slopes", y ~ x + (x || model) + (1 | prompt), FALSE)), function(case) {
  d <- sets[[case[[1]]]]
  m <- quiet(lmer(case[[2]], d, weights = w, REML = case[[3]], control = tight)); rows <- few(nrow(d))
  list(data = case[[1]], formula = paste(deparse(case[[2]]), collapse = " "), REML = case[[3]], weights = d$w,
       criterion = unname(getME(m, "devcomp")$cmp[if (case[[3]]) "REML" else "dev"]), loglik = as.numeric(logLik(m)),
       fixef = unname(fixef(m)), se = unname(sqrt(diag(as.matrix(vcov(m))))), sigma = sigma(m), ranef = modes(m),
       sdcor = as.data.frame(VarCorr(m))$sdcor, rows = rows - 1, fitted = unname(fitted(m))[rows],
       residuals = unname(residuals(m))[rows], scaled = unname(residuals(m, "pearson", scaled = TRUE))[rows],
       hat = unname(hatvalues(m))[rows], cooksd = unname(cooks.distance(m))[rows])
})

# -- predictions for rows that were not in the data --------------------------------------------------------
ahead <- function(name, formula, new, ...) {
  m <- quiet(lmer(formula, sets[[name]], control = tight))
  refused <- inherits(try(predict(m, newdata = new), silent = TRUE), "try-error")
  list(data = name, formula = paste(deparse(formula), collapse = " "), newdata = new, refused = refused,
       all = unname(predict(m, newdata = new, allow.new.levels = TRUE)),
       none = unname(predict(m, newdata = new, re.form = NA)),
       some = lapply(list(...), function(re) list(re = paste(deparse(re), collapse = ""),
         value = unname(predict(m, newdata = new, re.form = re, allow.new.levels = TRUE)))))
}
g <- expand.grid(Days = c(0, 4.5, 12), Subject = c("308", "372", "999"), stringsAsFactors = FALSE)
p <- data.frame(x = c(-1, 0, 2, .3), model = c("m01", "m05", "new", "m05"), prompt = c("p001", "p048", "p003", "pX"),
                category = c("c1", "c6", "c1", "cX"))
k <- expand.grid(recipe = c("B", "A"), temperature = c("175", "225", "205"), replicate = c("1", "99"),
                 stringsAsFactors = FALSE)
b <- data.frame(batch = c("A", "A", "B", "Z"), cask = c("a", "c", "z", "a"))
sets$slopes$half <- sets$slopes$x > 0
ko <- k; ko$temperature <- ordered(ko$temperature, levels = levels(sets$cake$temperature))
ko$replicate <- factor(ko$replicate)
ahead_list <- list(
  ahead("sleepstudy", Reaction ~ Days + (Days | Subject), g, ~ (1 | Subject), ~ (0 + Days | Subject)),
  ahead("sleepstudy", Reaction ~ Days + (Days | Subject), g[g$Subject != "999", ]),
  ahead("sleepstudy", Reaction ~ poly(Days, 2) + (Days || Subject), g, ~ (0 + Days | Subject)),
  ahead("sleepstudy", Reaction ~ bs(Days, df = 4) + (1 | Subject), g[g$Days < 9, ]),
  ahead("sleepstudy", Reaction ~ scale(Days) + I(Days^2) + (1 | Subject), g),
  ahead("slopes", y ~ x + (x | model) + (1 | prompt), p, ~ (1 | prompt), ~ (x | model)),
  ahead("slopes", y ~ x * category + (1 | model) + (1 | prompt), p[p$category != "cX", ]),
  ahead("slopes", y ~ x + (1 + x || model) + (1 | category/prompt), p, ~ (1 | category)),
  ahead("cake", angle ~ recipe * temperature + (1 | recipe:replicate), ko),
  ahead("Pastes", strength ~ 1 + (1 | batch/cask), b, ~ (1 | batch)))

# -- the grammar: names, order, columns --------------------------------------------------------------------
set.seed(11)
d <- expand.grid(a = c("a1", "a2", "a3"), b = c("b1", "b2", "b3", "b4"), run = 1:5)
d$g <- factor(sprintf("g%d", sample(rep(1:6, 10))))
d$h <- factor(sprintf("h%02d", sample(rep(1:12, 5))))
d$f <- factor(sample(rep(c("u", "v", "w"), 20)))
d$o <- ordered(sample(rep(c(1, 2, 3, 5), 15)))
d$l <- sample(c(TRUE, FALSE), 60, TRUE)
d$x <- round(rnorm(60), 3); d$z <- round(rexp(60), 3); d$x.dot <- round(runif(60), 3)
d$y <- round(rnorm(60) + d$x, 3)
write.csv(d, at("grammar"), row.names = FALSE)
any_size <- lmerControl(check.nobs.vs.nlev = "ignore", check.nobs.vs.rankZ = "ignore", check.nobs.vs.nRE = "ignore",
                        check.rankX = "silent.drop.cols")
grammar <- lapply(c(
  "y ~ (1|g)", "y ~ 1 + x + (x|g)", "y ~ x + (0+x|g)", "y ~ x + (x||g)", "y ~ (1|a/b)", "y ~ (1|b:a)", "y ~ (x|a/b)",
  "y ~ (x||a/b)", "y ~ (1|a/b/g)", "y ~ (1|g) + (1|h)", "y ~ (1|h) + (1|g)", "y ~ (1|a) + (1|g) + (1|h) + (1|b)",
  "y ~ ((1|g) + ((x|h)))", "y ~ x + ((1|g) + z)", "y ~ x + (x*z||g)", "y ~ (x+z|g) + (1|h)", "y ~ (f|g)",
  "y ~ (0+f|g)", "y ~ (f||g)", "y ~ (f+x||g)", "y ~ (o|g)", "y ~ (1|g) + (0+x|g) + (0+z|g)", "y ~ (1|a:b:g)",
  "y ~ (1|a/(b:g))", "y ~ (poly(x,2)|g)", "y ~ (log(z)||g)", "y ~ (x:z||g)", "y ~ (l|g)", "y ~ (f:x|h)",
  "y ~ f + (1|g)", "y ~ f*x + (1|g)", "y ~ f*o + (1|g)", "y ~ f:x + (1|g)", "y ~ 0 + f + (1|g)", "y ~ f - 1 + (1|g)",
  "y ~ 0 + f + o + (1|g)", "y ~ f + f:x + (1|g)", "y ~ f/x + (1|g)", "y ~ l + (1|g)", "y ~ l*f + (1|g)",
  "y ~ o + (1|g)", "y ~ 0 + o + (1|g)", "y ~ x:o + (1|g)", "y ~ (x + z + f)^2 + (1|g)", "y ~ x*z*f - x:z:f + (1|g)",
  "y ~ I(x^2) + (1|g)", "y ~ I(x/2) + I(x * z) + (1|g)", "y ~ log(z) + sqrt(z) + exp(x) + (1|g)",
  "y ~ poly(x, 2) + (1|g)", "y ~ poly(x, 2):z + (1|g)", "y ~ bs(x, df = 4) + (1|g)", "y ~ bs(x, df = 5, degree = 2) + (1|g)",
  "y ~ scale(x) + (1|g)", "y ~ factor(run) + (1|g)", "y ~ C(f, contr.sum) + (1|g)", "y ~ C(f, contr.helmert) + (1|g)",
  "y ~ C(f, contr.sum) * x + (1|g)", "y ~ x.dot + log(x.dot) + (1|g)", "y ~ x + I(2 * x) + z + (1|g)",
  "y ~ f + I(f == \"v\") + (1|g)", "log(y + 10) ~ x + (1|g)", "I(y^2) ~ x + (1|g)", "y ~ f:o + (1|g)", "y ~ x + z + z:x + (1|g)", "y ~ o:x + f + x:f + (1|g)",
  "y ~ f*x + o + o:f + (1|g)", "y ~ log(z) + x + x:log(z) + (1|g)", "y ~ x + (z:x + x|h)",
  "y ~ 0 + f:o + (1|g)", "y ~ 0 + f:l + (1|g)", "y ~ x + f:l + (1|g)", "y ~ f + f:l + (1|g)", "y ~ o + f:o + (1|g)",
  "y ~ a/b + (1|g)", "y ~ a/b/x + (1|g)", "y ~ l:x + (1|g)", "y ~ f:l + f + (1|g)", "y ~ x*f*l + (1|g)",
  "y ~ 0 + f:x + (1|g)", "y ~ 0 + f + f:x + (1|g)", "y ~ a*b - b + (1|g)", "y ~ (0 + f:l|g)", "y ~ (a*l|g)",
  "y ~ a*b*f + (1|g)", "y ~ x %in% f + (1|g)"), function(text) {
  l <- try(quiet(lFormula(as.formula(text), d, control = any_size)), silent = TRUE)
  if (inherits(l, "try-error")) return(list(formula = text, error = TRUE))
  r <- l$reTrms
  list(formula = text, x_names = I(colnames(l$X)), x_sums = I(unname(colSums(l$X))),
       x_moments = I(unname(colSums(l$X * sin(seq_len(60))))), y_sum = sum(model.response(l$fr)),
       groups = I(names(r$cnms)), columns = unname(lapply(r$cnms, I)),
       theta_names = I(quiet(names(getME(lmer(as.formula(text), d, control = lmerControl(optimizer = NULL,
         check.nobs.vs.nlev = "ignore", check.nobs.vs.rankZ = "ignore", check.nobs.vs.nRE = "ignore")), "theta")))),
       lower = I(ifelse(is.finite(r$lower), 0, -1)),
       levels = unname(lapply(names(r$cnms), function(n) I(levels(r$flist[[n]])))),
       z_moment = sum(as.matrix(r$Zt) %*% sin(seq_len(60)) * cos(seq_len(nrow(r$Zt)))))
})

# -- more singular fits: several terms, correlations of one ------------------------------------------------
set.seed(77)
s <- expand.grid(g = sprintf("g%02d", 1:12), h = sprintf("h%d", 1:8), run = 1:2)
s$a <- sprintf("a%d", (as.integer(s$g) - 1) %/% 3 + 1)
s$x <- round(rnorm(192), 4); s$z <- round(rnorm(192), 4); s$w <- round(rnorm(192), 4)
centred <- function(n) { e <- rnorm(n); e - mean(e) }
u <- rnorm(12); v <- rnorm(8)
noise <- rnorm(192)
noise2 <- residuals(lm(noise ~ factor(s$g) * s$x + factor(s$h)))      # g, its slopes and h explain nothing
s$one <- round(1 + .5 * s$x + u[s$g] * (1 + .6 * s$x) + noise2, 4)            # correlation +1, h at zero
s$minus <- round(1 + u[s$g] * (1 - .5 * s$x) + v[s$h] + .7 * noise, 4)       # correlation -1 with a crossed term
s$plane <- round(u[s$g] * (1 + .5 * s$x) + rnorm(12)[s$g] * s$z + noise, 4)  # rank two of three
s$line <- round(u[s$g] * (1 + .5 * s$x - .4 * s$z) + noise, 4)              # rank one of three
s$flat <- round(noise - ave(noise, s$g) - ave(noise, s$h) + mean(noise), 4) # all variances at zero
s$nested <- round(noise - ave(noise, s$g) + rnorm(4)[factor(s$a)], 4)       # inner zero, outer not
s$slope <- round(noise - ave(noise, s$g) + .8 * u[s$g] * s$w, 4)            # intercept zero, slope not
write.csv(s, at("singular"), row.names = FALSE)
best <- function(f, reml, s) {
  # lme4's optimisers may stop off the boundary: the best of several starts and programs is the reference.
  k <- length(getME(quiet(lmer(f, s, REML = reml, control = lmerControl(optimizer = NULL))), "theta"))
  low <- getME(quiet(lmer(f, s, REML = reml, control = lmerControl(optimizer = NULL))), "lower")
  out <- NULL
  keep <- function(ctl, start) {
    m <- try(quiet(lmer(f, s, REML = reml, control = ctl, start = start)), silent = TRUE)
    if (!inherits(m, "try-error") && (is.null(out) || crit(m) < crit(out))) out <<- m
  }
  crit <- function(m) unname(getME(m, "devcomp")$cmp[if (reml) "REML" else "dev"])
  for (start in list(NULL, ifelse(low == 0, .3, .1), ifelse(low == 0, .3, -.2), ifelse(low == 0, .05, 0)))
    for (opt in c("bobyqa", "nloptwrap")) {
      ctl <- if (opt == "bobyqa") tight else lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE,
        optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-12, maxeval = 1e5))
      keep(ctl, start)
    }
  # On from the best, at the boundary and beside it, with ever smaller steps.
  for (step in c(1e-2, 1e-3, 1e-4)) {
    near <- lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
                        optCtrl = list(rhobeg = step, rhoend = 1e-10, maxfun = 1e5))
    th <- getME(out, "theta")
    keep(near, th)
    keep(near, ifelse(low == 0 & th < 1e-2, 0, th))
  }
  out
}
gather <- function(name, f, reml, s) {
  m <- best(f, reml, s); v <- as.data.frame(VarCorr(m))
  list(data = name, formula = paste(deparse(f), collapse = " "), REML = reml,
    criterion = unname(getME(m, "devcomp")$cmp[if (reml) "REML" else "dev"]), theta = as.list(getME(m, "theta")),
    fixef = as.list(fixef(m)), se = unname(sqrt(diag(as.matrix(vcov(m))))), sigma = sigma(m), singular = isSingular(m),
    vcov = v$vcov, sdcor = v$sdcor, fitted = unname(fitted(m))[1:20])
}
# Kept, not made, here: a random design whose likelihood is all but flat between a variance of zero and a small one.
flat <- read.csv(at("flat"), stringsAsFactors = TRUE)
singular <- list(gather("flat", y ~ f + (x | a) + (1 | b), FALSE, flat))
for (f in list(one ~ x + (x | g), one ~ x + (x | g) + (1 | h), one ~ x + (x || g) + (1 | h), minus ~ x + (x | g) + (1 | h),
               plane ~ 1 + (x + z | g), line ~ 1 + (x + z | g) + (1 | h), flat ~ x + (1 | g) + (1 | h),
               flat ~ x + (x | g) + (1 | h), nested ~ 1 + (1 | a/g), nested ~ 1 + (1 | a/g) + (1 | h),
               slope ~ w + (w | g), slope ~ w + (w || g) + (1 | h), one ~ x + (x | g) + (x | h))) for (reml in c(TRUE, FALSE)) {
  singular[[length(singular) + 1]] <- gather("singular", f, reml, s)
}

# -- broom.mixed's columns ---------------------------------------------------------------------------------
m <- lmer(Reaction ~ Days + (Days | Subject), sets$sleepstudy); ml <- update(m, REML = FALSE)
suppressMessages(library(lmerTest))
mt <- lmerTest::lmer(Reaction ~ Days + (Days | Subject), sets$sleepstudy)
table <- function(t) { t <- as.data.frame(t); list(names = names(t), rows = t) }
broom <- list(
  tidy = quiet(names(tidy(mt, effects = c("fixed", "ran_pars", "ran_vals"), conf.int = TRUE))),
  fixed = quiet(table(tidy(m, "fixed", conf.int = TRUE))), ran_pars = quiet(table(tidy(m, "ran_pars"))),
  ran_vals = quiet(table(head(tidy(m, "ran_vals", conf.int = TRUE), 4))), glance = quiet(table(glance(m))),
  glance_ml = quiet(table(glance(ml))), augment = quiet(table(head(augment(m), 4))))
meta <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")),
             broom.mixed = as.character(packageVersion("broom.mixed")))
write_json(list(meta = meta, fits = fits, ahead = ahead_list, grammar = grammar, singular = singular, weighted = weighted, broom = broom),
           file.path(folder, "lmm_result.json"), digits = NA, auto_unbox = TRUE, null = "null", na = "null")
