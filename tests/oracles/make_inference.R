# Make the reference values of tests/mixed/test_inference_*.py with R: tests and intervals of fixed effects,
# analyses of variance, likelihood ratios, profiles.
# Usage: Rscript tests/oracles/make_inference.R tests/oracles
# Reads lmm/<name>.csv and lmm_result.json, writes lmm_inference.json in full double precision. R 4.2.2, lme4 1.1-31, lmerTest 3.1-3,
# pbkrtest 0.5.2.
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(jsonlite)})
folder <- commandArgs(TRUE)[1]
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
quiet <- function(e) suppressMessages(suppressWarnings(e))
data <- function(name) {
  d <- read.csv(file.path(folder, "lmm", paste0(name, ".csv")), stringsAsFactors = TRUE)
  if (name == "cake") { d$temperature <- factor(d$temperature, ordered = TRUE); d$replicate <- factor(d$replicate) }
  d
}
# ranova, anova and KRmodcomp fit again and look for the data where the formula was made.
fit <- function(f, d, REML = TRUE) {
  d <<- d
  eval(bquote(lmerTest::lmer(.(as.formula(f, env = globalenv())), d, REML = .(REML), control = tight)), globalenv())
}
mat <- function(m) list(rows = rownames(m), cols = colnames(m), values = unname(as.matrix(m)))
tab <- function(a) { a <- as.data.frame(a); c(list(term = rownames(a)), as.list(a)) }

cases <- list(
  sleepstudy = c("Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (1 | Subject)"),
  Penicillin = "diameter ~ 1 + (1 | plate) + (1 | sample)",
  Pastes = c("strength ~ 1 + (1 | batch/cask)", "strength ~ 1 + (1 | sample)"),
  cake = "angle ~ recipe * temperature + (1 | recipe:replicate)",
  Dyestuff = "Yield ~ 1 + (1 | Batch)", Dyestuff2 = "Yield ~ 1 + (1 | Batch)",
  audit = c("y ~ 1 + (1 | model) + (1 | category)", "y ~ 1 + (1 | model) + (1 | category/prompt) + (1 | model:category)",
            "y ~ category + (1 | model) + (1 | prompt)", "y ~ size + category + (1 | model) + (1 | category:prompt)"),
  slopes = c("y ~ x + (x | model) + (1 | prompt)", "y ~ x + (1 + x || model) + (1 | category/prompt)"),
  null_model = "y ~ 1 + (1 | model) + (1 | category/prompt)")
fits <- list()
for (n in names(cases)) for (f in cases[[n]]) for (R in c(TRUE, FALSE)) {
  m <- quiet(fit(f, data(n), R))
  r <- quiet(ranova(m))
  fits[[length(fits) + 1]] <- list(data = n, formula = f, REML = R,
    satterthwaite = mat(quiet(summary(m))$coefficients),
    kenward_roger = if (R) mat(quiet(summary(m, ddf = "Kenward-Roger"))$coefficients),
    wald = mat(confint(m, method = "Wald", oldNames = FALSE)),
    profile = if (n != "cake") quiet(mat(confint(m, method = "profile", oldNames = FALSE, quiet = TRUE))),
    ranova = list(term = rownames(r), npar = r$npar, logLik = r$logLik, LRT = r$LRT, Df = r$Df, p = r$`Pr(>Chisq)`))
  cat(n, f, R, "\n")
}

# lme4 interpolates a profile by splines: with its usual step the limits are off by up to 5e-4, with a fine
# one they settle.
fine <- list(); add <- function(n, f, delta) {
  m <- quiet(lme4::lmer(as.formula(f), data(n), REML = FALSE, control = tight))
  p <- quiet(profile(m, delta.cutoff = delta, maxpts = 1000, signames = FALSE))
  cat("profile", n, f, "\n")
  fine[[length(fine) + 1]] <<- list(data = n, formula = f, profile = mat(confint(p)), ninety = mat(confint(p, level = .9)))
}
add("Dyestuff", "Yield ~ 1 + (1 | Batch)", 1/300)
add("Pastes", "strength ~ 1 + (1 | batch/cask)", 1/80)
add("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", 1/40)
add("sleepstudy", "Reaction ~ Days + (Days | Subject)", 1/40)
add("slopes", "y ~ x + (x | model) + (1 | prompt)", 1/40)
add("audit", "y ~ size + category + (1 | model) + (1 | category:prompt)", 1/40)
add("null_model", "y ~ 1 + (1 | model) + (1 | category/prompt)", 1/40)

# Analyses of variance of three types with both degrees of freedom.
tables <- list()
for (case in list(list("unbalanced", "y ~ family * category + (1 | model) + (1 | prompt)", "all"),
                  list("unbalanced", "y ~ family + category + (1 | model) + (1 | prompt)", "all"),
                  list("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", "all"),
                  list("audit", "y ~ size + category + (1 | model) + (1 | category:prompt)", "Satterthwaite"),
                  list("slopes", "y ~ x * category + size + (x | model) + (1 | prompt)", "Satterthwaite"),
                  list("holes", "y ~ a * b + x + (1 | g)", "all"),
                  list("holes", "y ~ a * x + b + (1 | g)", "all"),
                  list("holes", "y ~ a * b * x + (1 | g)", "Satterthwaite"),
                  list("gaps", "y ~ a * b + x + (1 | g)", "Satterthwaite"),
                  list("gaps", "y ~ a * l + I(x^2) + (1 | g)", "Satterthwaite"),
                  list("gaps", "y ~ 0 + a + x + (1 | g)", "Satterthwaite"))) {
  d <- if (case[[1]] == "gaps") {
    # One cell of a and b is empty; l is a truth value.
    h <- data("holes"); h$l <- h$x > 0; h <- droplevels(h[!(h$a == "r" & h$b == "v"), ])
    write.csv(h, file.path(folder, "lmm", "gaps.csv"), row.names = FALSE); h
  } else if (case[[1]] == "holes") {
    set.seed(3); h <- expand.grid(a = c("p", "q", "r"), b = c("u", "v"), g = sprintf("g%02d", 1:14), stringsAsFactors = TRUE)
    h$x <- round(rnorm(nrow(h)), 3); h$y <- round(rnorm(14, 0, .8)[h$g] + .5 * (h$a == "q") + .2 * h$x + rnorm(nrow(h)), 4)
    h <- h[sort(sample(nrow(h), 60)), ]; write.csv(h, file.path(folder, "lmm", "holes.csv"), row.names = FALSE); h
  } else data(case[[1]])
  m <- fit(case[[2]], d)
  for (ddf in if (case[[3]] == "all") c("Satterthwaite", "Kenward-Roger") else case[[3]]) for (type in c("I", "II", "III"))
    tables[[length(tables) + 1]] <- list(data = case[[1]], formula = case[[2]], ddf = ddf, type = type, table = tab(quiet(anova(m, type = type, ddf = ddf))))
  cat("anova", case[[2]], "\n")
}

# Fits at the boundary: started at the optimum that make_lmm_result.R found, where lme4 stays.
edge <- list()
for (x in fromJSON(file.path(folder, "lmm_result.json"), simplifyVector = FALSE)$singular) if (x$REML) {
  d <- data("singular"); from <- unlist(x$theta)
  near <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 1e-6, rhoend = 1e-12, maxfun = 2000))
  m <- quiet(eval(bquote(lmerTest::lmer(.(as.formula(x$formula)), d, start = from, control = near))))
  edge[[length(edge) + 1]] <- list(data = "singular", formula = x$formula, REML = TRUE, satterthwaite = mat(quiet(summary(m))$coefficients),
    kenward_roger = mat(quiet(summary(m, ddf = "Kenward-Roger"))$coefficients))
}

# Contrasts and comparisons.
d <- data("unbalanced")
m <- fit("y ~ family * category + (1 | model) + (1 | prompt)", d)
m0 <- fit("y ~ family + category + (1 | model) + (1 | prompt)", d)
m1 <- fit("y ~ category + (1 | model) + (1 | prompt)", d)
L <- rbind(c(0, 1, 0, .5), c(0, 0, 1, .5)); J <- rbind(c(0, 1, 0, 0), c(0, 0, 1, 0), c(0, 0, 0, 1))
k <- as.list(KRmodcomp(m, m0)$test["Ftest", ]); k1 <- as.list(KRmodcomp(m0, m1)$test["Ftest", ])
k3 <- as.list(KRmodcomp(m, fit("y ~ 1 + (1 | model) + (1 | prompt)", d))$test["Ftest", ])
con <- list(L = L, J = J, vcov_kr = as.matrix(vcovAdj(m)), krmodcomp_interaction = k, krmodcomp_family = k1, krmodcomp_all = k3,
  joint = lapply(c(KR = "Kenward-Roger", S = "Satterthwaite"), function(x) as.list(contest(m, J, ddf = x))),
  joint_rhs = as.list(contest(m, J, rhs = c(.1, -.2, .3), ddf = "Satterthwaite")),
  single = lapply(c(KR = "Kenward-Roger", S = "Satterthwaite"), function(x) as.list(contest(m, L, joint = FALSE, ddf = x, confint = TRUE))))
compare <- list(); cmp <- function(n, fs) {
  a <- quiet(do.call(anova, lapply(fs, fit, d = data(n), R = TRUE)))
  compare[[length(compare) + 1]] <<- list(data = n, formulas = fs, npar = a$npar, AIC = a$AIC, BIC = a$BIC, logLik = a$logLik,
    deviance = a$deviance, Chisq = a$Chisq, Df = a$Df, p = a$`Pr(>Chisq)`)
}
cmp("sleepstudy", c("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (Days | Subject)"))
cmp("audit", c("y ~ 1 + (1 | model) + (1 | prompt)", "y ~ category + (1 | model) + (1 | prompt)"))
cmp("null_model", c("y ~ 1 + (1 | category/prompt)", "y ~ 1 + (1 | model) + (1 | category/prompt)"))
write_json(list(meta = list(R = R.version.string, lme4 = as.character(packageVersion("lme4")), lmerTest = as.character(packageVersion("lmerTest")),
  pbkrtest = as.character(packageVersion("pbkrtest"))), fits = fits, edge = edge, fine = fine, anova = tables, contrasts = con, compare = compare),
  file.path(folder, "lmm_inference.json"), digits = NA, auto_unbox = TRUE, null = "null")
